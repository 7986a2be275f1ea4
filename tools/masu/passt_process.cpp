// Starting passt, which goes into the background by itself once it is ready.
#include "tools/masu/passt_process.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "tools/masu/child_program.hpp"
#include "devices/net/firewall/address.hpp"

namespace masu::cli {
namespace {

constexpr std::size_t log_limit = 1 * MiB;
constexpr const char* router_mac = "06:01:23:45:67:02";

Result<std::uint16_t> parse_port(std::string_view whole, std::string_view text) {
    unsigned port = 0;
    const auto* end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, port);
    if (error != std::errc() || rest != end || port == 0 || port > 65535)
        return fail("-p {}: \"{}\" is not a port (1 to 65535); write HOST:GUEST, such as 8080:80",
                    whole, text);
    return static_cast<std::uint16_t>(port);
}

void add_ports(std::vector<std::string>& arguments, const std::vector<PublishedPort>& ports,
               bool udp) {
    const char* option = udp ? "-u" : "-t";
    bool any = false;
    for (const auto& port : ports) {
        if (port.udp != udp)
            continue;
        any = true;
        arguments.emplace_back(option);
        arguments.push_back(fmt::format("{}{}{}:{}", port.host_address,
                                        port.host_address.empty() ? "" : "/", port.host,
                                        port.guest));
    }
    if (!any) {
        arguments.emplace_back(option);
        arguments.emplace_back("none");
    }
}

std::vector<std::string> arguments_for(const std::string& program,
                                       const std::vector<PublishedPort>& ports, int socket) {
    namespace network = user_network;
    std::vector<std::string> arguments{
        program, "--quiet", "--stderr", "--fd", std::to_string(socket), "--ipv4-only", "--address",
        network::address, "--netmask", network::prefix_length, "--gateway", network::gateway,
        "--mac-addr", router_mac, "--mtu", std::to_string(network::mtu),
        // DNS queries to this address go to the host's resolver.
        "--dns-forward", network::dns,
        // The monitor answers these itself; and the host's own services are not the guest's.
        "--no-dhcp", "--no-dhcpv6", "--no-ra", "--no-ndp", "--no-map-gw"};
    add_ports(arguments, ports, false);
    add_ports(arguments, ports, true);
    return arguments;
}

// In the child. Only async-signal-safe calls from here to exec.
[[noreturn]] void become_passt(char* const* arguments, int null, int log, int socket) {
    ::setsid();
    ::dup2(null, STDIN_FILENO);
    ::dup2(null, STDOUT_FILENO);
    ::dup2(log, STDERR_FILENO);
    ::close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    ::fcntl(socket, F_SETFD, 0);
    ::execv(arguments[0], arguments);
    ::_exit(127);
}

std::string why(const std::string& log) {
    auto text = read_file(log, log_limit).value_or("");
    while (!text.empty() && text.back() == '\n')
        text.pop_back();
    const auto line = text.substr(text.rfind('\n') + 1);
    return line.empty() ? "it said nothing" : line;
}

}  // namespace

Result<PublishedPort> parse_published_port(std::string_view text) {
    PublishedPort port;
    auto rest = text;
    if (const auto slash = rest.rfind('/'); slash != std::string_view::npos) {
        const auto protocol = rest.substr(slash + 1);
        if (protocol != "tcp" && protocol != "udp")
            return fail("-p {}: \"{}\" is neither tcp nor udp", text, protocol);
        port.udp = protocol == "udp";
        rest = rest.substr(0, slash);
    }
    const auto colon = rest.rfind(':');
    if (colon == std::string_view::npos)
        return fail("-p {}: must be HOST:GUEST, such as 8080:80", text);
    port.guest = TRY(parse_port(text, rest.substr(colon + 1)));
    rest = rest.substr(0, colon);
    if (const auto address = rest.rfind(':'); address != std::string_view::npos) {
        port.host_address = rest.substr(0, address);
        const auto parsed = net::parse_address(port.host_address);
        if (!parsed || parsed->family != net::Family::V4)
            return fail("-p {}: \"{}\" is not an IPv4 address of this machine", text,
                        port.host_address);
        rest = rest.substr(address + 1);
    }
    port.host = TRY(parse_port(text, rest));
    // Open to others only where somebody says so: no security group stands before a published port.
    if (port.host_address.empty())
        port.host_address = "127.0.0.1";
    return port;
}

std::string to_string(const PublishedPort& port) {
    return fmt::format("{}{}{}:{}/{}", port.host_address, port.host_address.empty() ? "" : ":",
                       port.host, port.guest, port.udp ? "udp" : "tcp");
}

std::optional<std::string> find_passt() {
    if (const char* chosen = std::getenv("MASU_PASST"))
        return *chosen == '\0' ? std::nullopt : std::optional<std::string>(chosen);
    const char* path = std::getenv("PATH");
    std::string_view rest = path == nullptr ? "/usr/bin:/bin" : path;
    for (;;) {
        const auto end = rest.find(':');
        const auto candidate = std::string(rest.substr(0, end)) + "/passt";
        if (::access(candidate.c_str(), X_OK) == 0)
            return candidate;
        if (end == std::string_view::npos)
            return std::nullopt;
        rest.remove_prefix(end + 1);
    }
}

Result<Fd> start_passt(const std::string& program, const std::vector<PublishedPort>& ports,
                       const std::string& log) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return fail_errno(errno, "cannot make a socket for passt");
    Fd ours(ends[0]);
    Fd theirs(ends[1]);
    const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const Fd output(::open(log.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
    if (!null || !output)
        return fail_errno(errno, "cannot open {}", output ? "/dev/null" : log);
    auto arguments = arguments_for(program, ports, theirs.get());
    const auto pointers = exec_arguments(arguments);

    const auto pid = ::fork();
    if (pid < 0)
        return fail_errno(errno, "cannot start {}", program);
    if (pid == 0)
        become_passt(pointers.data(), null.get(), output.get(), theirs.get());
    theirs.reset();
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return fail("{} gave up: {} (use --net none, or a TAP, to go without it)", program,
                    why(log));
    return ours;
}

}  // namespace masu::cli

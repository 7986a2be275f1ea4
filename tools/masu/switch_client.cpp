// Reaching the switch of a network through its socket in the runtime folder.
#include "tools/masu/switch_client.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <tuple>
#include <vector>

#include <boost/json.hpp>

#include "tools/masu/child_program.hpp"

namespace masu::cli {
namespace {

namespace json = boost::json;

constexpr int answer_seconds = 10;
// An address of a VM that has just ended stays its port's until the switch has seen the end.
constexpr int in_use_tries = 100;
constexpr useconds_t in_use_pause = 50'000;  // microseconds

std::string socket_name(const NetworkRecord& network) {
    return "net-" + network.id;
}

// The folder's path may be longer than a socket's may be (107 bytes), so the socket is reached
// through a descriptor of the folder.
struct SocketPlace {
    Fd folder;
    sockaddr_un address{};
};
Result<SocketPlace> place_of(const NetworkStore& networks, const NetworkRecord& network) {
    const auto& runtime = networks.store().places().runtime;
    TRY(make_folder(runtime));
    SocketPlace place{.folder = Fd(::open(runtime.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC))};
    if (!place.folder)
        return fail_errno(errno, "cannot open {}", runtime);
    const auto path = fmt::format("/proc/self/fd/{}/{}", place.folder.get(), socket_name(network));
    place.address.sun_family = AF_UNIX;
    path.copy(place.address.sun_path, sizeof place.address.sun_path - 1);
    return place;
}

Result<Fd> new_socket() {
    Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (!fd)
        return fail_errno(errno, "cannot make a socket");
    const timeval limit{.tv_sec = answer_seconds, .tv_usec = 0};
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    return fd;
}

const sockaddr* as_sockaddr(const sockaddr_un& address) {
    return reinterpret_cast<const sockaddr*>(&address);  // NOLINT: the sockets API wants it
}

Result<Fd> connect_switch(const NetworkStore& networks, const NetworkRecord& network) {
    const auto place = TRY(place_of(networks, network));
    auto socket = TRY(new_socket());
    if (::connect(socket.get(), as_sockaddr(place.address), sizeof place.address) < 0)
        return fail_errno(errno, "cannot reach the switch of network {}", network.name);
    return socket;
}

Result<> send_request(const Fd& socket, const json::object& request, const Fd* passed) {
    const auto text = json::serialize(request);
    iovec piece{.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr message{.msg_iov = &piece, .msg_iovlen = 1};
    if (passed != nullptr) {
        message.msg_control = control.data();
        message.msg_controllen = control.size();
        auto* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        const int number = passed->get();
        std::memcpy(CMSG_DATA(header), &number, sizeof number);
    }
    if (::sendmsg(socket.get(), &message, MSG_NOSIGNAL) < 0)
        return fail_errno(errno, "cannot ask the switch");
    return {};
}

struct Answer {
    json::object body;
    std::vector<Fd> descriptors;
};

std::vector<Fd> descriptors_of(msghdr& message) {
    std::vector<Fd> descriptors;
    const auto* header = CMSG_FIRSTHDR(&message);
    if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
        return descriptors;
    const auto count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < std::min(count, switch_protocol::max_descriptors); ++i) {
        int number = -1;
        std::memcpy(&number, CMSG_DATA(header) + i * sizeof number, sizeof number);
        descriptors.emplace_back(number);
    }
    return descriptors;
}

// Its error has ECONNRESET where the switch ended without an answer.
Result<Answer> ask(const Fd& socket, const json::object& request, const Fd* passed) {
    if (const auto sent = send_request(socket, request, passed); !sent)
        return std::unexpected(Error{sent.error().message, ECONNRESET});
    std::string text(switch_protocol::answer_limit, '\0');
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * switch_protocol::max_descriptors)>
        control{};
    iovec piece{.iov_base = text.data(), .iov_len = text.size()};
    msghdr message{.msg_iov = &piece,
                   .msg_iovlen = 1,
                   .msg_control = control.data(),
                   .msg_controllen = control.size()};
    const auto got = ::recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC);
    if (got == 0)
        return std::unexpected(Error{"the switch ended", ECONNRESET});
    if (got < 0)
        return fail_errno(errno, "the switch does not answer");
    Answer answer{.body = {}, .descriptors = descriptors_of(message)};
    text.resize(static_cast<std::size_t>(got));
    boost::system::error_code error;
    auto value = json::parse(text, error);
    if (error || !value.is_object())
        return fail("the switch answers what is no JSON object");
    answer.body = std::move(value.get_object());
    return answer;
}

// In the child's child. Only async-signal-safe calls from here to exec.
[[noreturn]] void become_switch(char* const* arguments, int null, int log, int listener) {
    for (const int signal : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP})
        ::signal(signal, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::dup2(null, STDIN_FILENO);
    ::dup2(null, STDOUT_FILENO);
    ::dup2(log, STDERR_FILENO);
    ::close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    ::fcntl(listener, F_SETFD, 0);
    if (::chdir("/") == 0)
        ::execv("/proc/self/exe", arguments);
    ::_exit(127);
}

// The socket listens before the switch runs, so whoever connects now is answered later.
Result<> start_switch(const NetworkStore& networks, const NetworkRecord& network) {
    const auto place = TRY(place_of(networks, network));
    const Fd listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!listener)
        return fail_errno(errno, "cannot make a socket");
    ::unlink(place.address.sun_path);
    if (::bind(listener.get(), as_sockaddr(place.address), sizeof place.address) < 0 ||
        ::chmod(place.address.sun_path, 0600) < 0 || ::listen(listener.get(), 64) < 0)
        return fail_errno(errno, "cannot make the socket of network {}'s switch", network.name);
    const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const auto log_path = networks.log_of(network.name);
    const Fd log(::open(log_path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
    if (!null || !log)
        return fail_errno(errno, "cannot open {}", log ? "/dev/null" : log_path);
    std::vector<std::string> arguments{"masu", "net-switch", network.name,
                                       std::to_string(listener.get())};
    const auto pointers = exec_arguments(arguments);
    const auto pid = ::fork();
    if (pid < 0)
        return fail_errno(errno, "cannot start the switch of network {}", network.name);
    if (pid == 0) {
        ::setsid();
        if (::fork() == 0)
            become_switch(pointers.data(), null.get(), log.get(), listener.get());
        ::_exit(0);
    }
    while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return {};
}

// Of a switch that ended because its last port did, another takes the place.
Result<Answer> ask_or_start(const NetworkStore& networks, const NetworkRecord& network,
                            const json::object& request, const Fd& passed) {
    for (int attempt = 0;; ++attempt) {
        auto socket = connect_switch(networks, network);
        auto answer = socket ? ask(*socket, request, passed ? &passed : nullptr)
                             : Result<Answer>(std::unexpected(socket.error()));
        if (answer || attempt == 3)
            return answer;
        const auto error = answer.error().os_errno;
        if (error != ECONNRESET && error != ECONNREFUSED && error != ENOENT)
            return answer;
        TRY(start_switch(networks, network));
    }
}

}  // namespace

Result<std::vector<Fd>> join_switch(const NetworkStore& networks, const NetworkRecord& network,
                                    const Lease& lease, unsigned queues) {
    const bool bridge = network.driver == NetworkRecord::Driver::Bridge;
    json::object request{{"action", "join"},
                         {"vm", lease.vm},
                         {"vm_id", lease.vm_id},
                         {"mac", net::to_string(lease.addresses.mac)},
                         {"address", net::to_string(lease.addresses.ipv4)},
                         {"queues", queues}};
    if (lease.addresses.ipv6)
        request["address6"] = net::to_string(*lease.addresses.ipv6);
    for (int attempt = 0;; ++attempt) {
        std::vector<Fd> ours;
        Fd theirs;
        if (!bridge) {
            int ends[2];
            if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
                return fail_errno(errno, "cannot make a socket");
            ours.emplace_back(ends[0]);
            theirs.reset(ends[1]);
        }
        auto answer = ask_or_start(networks, network, request, theirs);
        if (!answer)
            return in_context("network " + network.name, std::move(answer.error()));
        const auto* error = answer->body.if_contains("error");
        if (error == nullptr && bridge && answer->descriptors.size() != queues)
            return fail("network {}: its bridge gave {} queues for {} CPUs", network.name,
                        answer->descriptors.size(), queues);
        if (error == nullptr)
            return bridge ? std::move(answer->descriptors) : std::move(ours);
        if (!answer->body.contains("in_use") || attempt == in_use_tries)
            return fail("network {}: {}", network.name,
                        error->is_string() ? std::string_view(error->get_string()) : "refused");
        ::usleep(in_use_pause);
    }
}

json::array switch_ports(const NetworkStore& networks, const NetworkRecord& network) {
    const auto socket = connect_switch(networks, network);
    auto answer = socket ? ask(*socket, {{"action", "ports"}}, nullptr)
                         : Result<Answer>(std::unexpected(socket.error()));
    if (!answer)
        return {};
    auto* ports = answer->body.if_contains("ports");
    return ports != nullptr && ports->is_array() ? std::move(ports->get_array()) : json::array();
}

void stop_switch(const NetworkStore& networks, const NetworkRecord& network) {
    if (const auto socket = connect_switch(networks, network))
        std::ignore = ask(*socket, {{"action", "stop"}}, nullptr);
    if (const auto place = place_of(networks, network))
        ::unlink(place->address.sun_path);
}

}  // namespace masu::cli

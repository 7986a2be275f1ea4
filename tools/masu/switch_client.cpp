// Reaching the switch of a network through its socket in the runtime folder.
#include "tools/masu/switch_client.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <tuple>
#include <vector>

#include <boost/json.hpp>

#include "base/passed_descriptors.hpp"
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
    const auto descriptors = passed == nullptr ? std::span<const Fd>() : std::span(passed, 1);
    if (send_with_descriptors(socket.get(), std::as_bytes(std::span(text)), descriptors) < 0)
        return fail_errno(errno, "cannot ask the switch");
    return {};
}

struct Answer {
    json::object body;
    std::vector<Fd> descriptors;
};

// Its error has ECONNRESET where the switch ended without an answer.
Result<Answer> ask(const Fd& socket, const json::object& request, const Fd* passed) {
    if (const auto sent = send_request(socket, request, passed); !sent)
        return std::unexpected(Error{sent.error().message, ECONNRESET});
    std::string text(switch_protocol::answer_limit, '\0');
    auto received = receive_with_descriptors(socket.get(), std::as_writable_bytes(std::span(text)));
    const auto got = received.size;
    if (got == 0)
        return std::unexpected(Error{"the switch ended", ECONNRESET});
    if (got < 0)
        return fail_errno(errno, "the switch does not answer");
    Answer answer{.body = {}, .descriptors = std::move(received.passed)};
    text.resize(static_cast<std::size_t>(got));
    boost::system::error_code error;
    auto value = json::parse(text, error);
    if (error || !value.is_object())
        return fail("the switch answers what is no JSON object");
    answer.body = std::move(value.get_object());
    return answer;
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
    const int number = listener.get();
    return start_in_background({"masu", "net-switch", network.name, std::to_string(number)},
                               networks.log_of(network.name), std::span(&number, 1),
                               fmt::format("the switch of network {}", network.name));
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

// One event loop: the switch's ports, and the socket on which commands ask for them.
#include "tools/masu/switch_process.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>
#include <map>
#include <optional>
#include <tuple>

#include <boost/json.hpp>

#include "base/event_loop.hpp"
#include "devices/net/switch/frame_switch.hpp"
#include "tools/masu/commands.hpp"
#include "tools/masu/group_rules.hpp"
#include "tools/masu/switch_client.hpp"

namespace masu::cli {
namespace {

namespace json = boost::json;

constexpr Nanoseconds idle_limit = 30'000'000'000;
constexpr std::size_t max_callers = 64;

struct Request {
    json::object body;
    Fd passed;
};

// One packet with at most one descriptor; the kernel closes those that find no room.
Result<Request> receive(const Fd& caller) {
    std::string text(switch_protocol::request_limit, '\0');
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    iovec piece{.iov_base = text.data(), .iov_len = text.size()};
    msghdr message{.msg_iov = &piece,
                   .msg_iovlen = 1,
                   .msg_control = control.data(),
                   .msg_controllen = control.size()};
    const auto got = ::recvmsg(caller.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    Request request;
    if (const auto* header = CMSG_FIRSTHDR(&message); got >= 0 && header != nullptr &&
                                                      header->cmsg_type == SCM_RIGHTS &&
                                                      header->cmsg_len == CMSG_LEN(sizeof(int))) {
        int number = -1;
        std::memcpy(&number, CMSG_DATA(header), sizeof number);
        request.passed.reset(number);
    }
    if (got <= 0 || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
        return fail("no whole request");
    boost::system::error_code error;
    auto value = json::parse(text.substr(0, static_cast<std::size_t>(got)), error);
    if (error || !value.is_object())
        return fail("the request is no JSON object");
    request.body = std::move(value.get_object());
    return request;
}

Result<std::string> text_at(const json::object& object, std::string_view key) {
    const auto* value = object.if_contains(key);
    if (value == nullptr || !value->is_string())
        return fail("the request lacks {}", key);
    return std::string(value->get_string());
}

Result<net::PortAddresses> addresses_of(const json::object& body) {
    net::PortAddresses addresses;
    const auto mac = TRY(text_at(body, "mac"));
    const auto ipv4 = TRY(text_at(body, "address"));
    addresses.mac = TRY(net::parse_mac(mac));
    addresses.ipv4 = TRY(net::parse_address(ipv4));
    if (body.contains("address6")) {
        const auto ipv6 = TRY(text_at(body, "address6"));
        addresses.ipv6 = TRY(net::parse_address(ipv6));
    }
    return addresses;
}

json::object to_json(const net::FrameSwitch::Port& port) {
    const auto& counters = port.counters;
    json::object dropped;
    for (std::size_t i = 1; i < net::switch_drop_count; ++i)
        if (counters.dropped[i] != 0)
            dropped[net::to_string(static_cast<net::SwitchDrop>(i))] = counters.dropped[i];
    return {{"mac", net::to_string(port.addresses.mac)},
            {"sent_frames", counters.received_frames},  // as the VM sees it
            {"sent_bytes", counters.received_bytes},
            {"received_frames", counters.sent_frames},
            {"received_bytes", counters.sent_bytes},
            {"dropped", std::move(dropped)}};
}

class SwitchProcess {
  public:
    SwitchProcess(const Store& store, EventLoop& loop, Fd listener)
        : store_(store),
          loop_(loop),
          listener_(std::move(listener)),
          switch_(loop, [this](const net::FrameSwitch::Port& port) { left(port); }) {}

    Result<> run() {
        idle_ = TRY(loop_.timer([this] { ending_ = switch_.size() == 0; }));
        idle_->arm(idle_limit);
        watch_ = TRY(loop_.watch(listener_.get(), EPOLLIN, [this](auto) { accept(); }));
        // Asked after all events of a round, in which somebody may have joined again.
        while (!ending_ && !told_to_stop_)
            loop_.run_once(-1);
        // Who has connected and not been heard finds the connection reset, and starts another.
        return {};
    }

  private:
    struct Caller {
        Fd socket;
        EventLoop::Watch watch;
    };

    void accept() {
        const int number =
            ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (number < 0)
            return;
        Fd socket(number);
        ucred peer{};
        socklen_t size = sizeof peer;
        if (::getsockopt(number, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ||
            peer.uid != ::geteuid())
            return;
        auto watch = loop_.watch(number, EPOLLIN, [this, number](auto) { serve(number); });
        if (watch)
            callers_.insert_or_assign(number, Caller{std::move(socket), *std::move(watch)});
        // More of them wait: turned away, they would take the switch for dead.
        if (callers_.size() >= max_callers)
            watch_.set_events(0);
    }

    void serve(int number) {
        const auto found = callers_.find(number);
        if (found == callers_.end())
            return;
        const auto caller = std::move(found->second);
        callers_.erase(found);
        watch_.set_events(EPOLLIN);
        auto request = receive(caller.socket);
        const auto answer = json::serialize(
            request ? obey(*std::move(request)) : json::object{{"error", request.error().message}});
        const int room = switch_protocol::answer_limit;
        ::setsockopt(number, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
        std::ignore = ::send(number, answer.data(), answer.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    }

    json::object obey(Request request) {
        const auto action = text_at(request.body, "action").value_or("");
        if (action == "stop") {
            told_to_stop_ = true;
            return {};
        }
        if (action == "ports") {
            json::array ports;
            for (const auto& port : switch_.ports())
                ports.push_back(to_json(port));
            return {{"ports", std::move(ports)}};
        }
        if (action != "join")
            return {{"error", "the request asks for nothing known"}};
        return join(std::move(request));
    }

    json::object join(Request request) {
        const auto addresses = addresses_of(request.body);
        const auto vm = text_at(request.body, "vm");
        const auto id = text_at(request.body, "vm_id");
        if (!addresses || !vm || !id || !request.passed)
            return {{"error", "the request to join is not whole"}};
        const auto added = switch_.add(std::move(request.passed), *vm, *addresses);
        if (!added)
            return {{"error", added.error().message}, {"in_use", true}};
        ids_[addresses->mac] = *id;
        ending_ = false;
        return {};
    }

    // The rules that name the VM's groups lose its addresses, in a process of its own, since that
    // waits for monitors. Until then nobody can use them: the port is gone.
    void left(const net::FrameSwitch::Port& port) {
        const auto id = ids_[port.addresses.mac];
        ids_.erase(port.addresses.mac);
        if (const auto child = ::fork(); child == 0) {
            ::close_range(STDERR_FILENO + 1, ~0U, 0);
            if (const auto told = tell_members(port.name, id); !told)
                note(fmt::format("{} has left, but: {}", port.name, told.error().message));
            ::_exit(0);
        }
        ending_ = switch_.size() == 0;
    }

    Result<> tell_members(const std::string& vm, const std::string& id) const {
        if (const auto folder = store_.find(vm)) {
            const auto record = folder->record();
            if (record && record->id == id)
                TRY(folder->wait_until_dead());
        }
        return GroupStore(store_.places().state).publish([&](const GroupBook& book) {
            return push_rules(store_, book);
        });
    }

    const Store& store_;
    EventLoop& loop_;
    Fd listener_;
    EventLoop::Watch watch_;
    std::optional<EventLoop::Timer> idle_;
    std::map<int, Caller> callers_;
    std::map<net::MacAddress, std::string> ids_;  // of the VMs behind the ports
    net::FrameSwitch switch_;
    bool ending_ = false;  // there is no port left
    bool told_to_stop_ = false;
};

}  // namespace

Result<> run_switch(const Store& store, const std::string& network, Fd listener) {
    int type = 0;
    socklen_t size = sizeof type;
    if (::getsockopt(listener.get(), SOL_SOCKET, SO_TYPE, &type, &size) < 0 ||
        type != SOCK_SEQPACKET)
        return fail("network {}: descriptor {} is not the switch's socket", network,
                    listener.get());
    ::fcntl(listener.get(), F_SETFD, FD_CLOEXEC);
    ::prctl(PR_SET_NAME, "masu-switch");
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    ::signal(SIGCHLD, SIG_IGN);  // NOLINT: children report to nobody
    const auto loop = TRY(EventLoop::create());
    return SwitchProcess(store, *loop, std::move(listener)).run();
}

}  // namespace masu::cli

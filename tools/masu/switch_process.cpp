// One event loop: the network's ports, and the socket on which commands ask for them.
#include "tools/masu/switch_process.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include <boost/json.hpp>

#include "base/event_loop.hpp"
#include "base/passed_descriptors.hpp"
#include "tools/masu/commands.hpp"
#include "tools/masu/group_rules.hpp"
#include "tools/masu/network_driver.hpp"
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

// One packet with at most one descriptor.
Result<Request> receive(const Fd& caller) {
    std::string text(switch_protocol::request_limit, '\0');
    auto received = receive_with_descriptors(caller.get(), std::as_writable_bytes(std::span(text)),
                                             MSG_DONTWAIT);
    const auto got = received.size;
    Request request;
    if (received.passed.size() == 1)
        request.passed = std::move(received.passed.front());
    if (got <= 0 || (received.flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
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

// One packet, with the descriptors.
void send_answer(const Fd& caller, const json::object& body, const std::vector<Fd>& passed) {
    const auto text = json::serialize(body);
    const int room = switch_protocol::answer_limit;
    ::setsockopt(caller.get(), SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    std::ignore =
        send_with_descriptors(caller.get(), std::as_bytes(std::span(text)), passed, MSG_DONTWAIT);
}

class SwitchProcess {
  public:
    SwitchProcess(const Store& store, EventLoop& loop, Fd listener)
        : store_(store), loop_(loop), listener_(std::move(listener)) {}

    // Where the network cannot be had, who asks to join it is told why.
    Result<> run(const NetworkRecord& network) {
        driver_ = NetworkDriver::create(
            network, loop_,
            [this](const std::string& vm, const net::MacAddress& mac) { left(vm, mac); });
        idle_ = TRY(loop_.timer([this] { ending_ = is_empty(); }));
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
        std::vector<Fd> passed;
        const auto answer = request ? obey(*std::move(request), passed)
                                    : json::object{{"error", request.error().message}};
        send_answer(caller.socket, answer, passed);
    }

    json::object obey(Request request, std::vector<Fd>& passed) {
        const auto action = text_at(request.body, "action").value_or("");
        if (action == "stop") {
            told_to_stop_ = true;
            return {};
        }
        if (action == "ports")
            return {{"ports", driver_ ? (*driver_)->ports() : json::array()}};
        if (action != "join")
            return {{"error", "the request asks for nothing known"}};
        return join(std::move(request), passed);
    }

    json::object join(Request request, std::vector<Fd>& passed) {
        const auto addresses = addresses_of(request.body);
        const auto vm = text_at(request.body, "vm");
        const auto id = text_at(request.body, "vm_id");
        const auto* queues = request.body.if_contains("queues");
        if (!addresses || !vm || !id || queues == nullptr || !queues->is_int64() ||
            queues->get_int64() < 1 ||
            queues->get_int64() > std::int64_t{switch_protocol::max_descriptors})
            return {{"error", "the request to join is not whole"}};
        if (!driver_) {
            ending_ = true;
            return {{"error", driver_.error().message}};
        }
        auto added = (*driver_)->join({.vm = *vm,
                                       .addresses = *addresses,
                                       .queues = static_cast<unsigned>(queues->get_int64()),
                                       .socket = std::move(request.passed)});
        if (!added) {
            ending_ = is_empty();
            json::object answer{{"error", added.error().message}};
            if (added.error().os_errno == EADDRINUSE)
                answer["in_use"] = true;
            return answer;
        }
        passed = *std::move(added);
        ids_[addresses->mac] = *id;
        ending_ = false;
        return {};
    }

    bool is_empty() const { return !driver_ || (*driver_)->size() == 0; }

    // The rules that name the VM's groups lose its addresses, in a process of its own, since that
    // waits for monitors. Until then nobody can use them: the port is gone.
    void left(const std::string& vm, const net::MacAddress& mac) {
        const auto id = ids_[mac];
        ids_.erase(mac);
        if (const auto child = ::fork(); child == 0) {
            ::close_range(STDERR_FILENO + 1, ~0U, 0);
            if (const auto told = tell_members(vm, id); !told)
                note(fmt::format("{} has left, but: {}", vm, told.error().message));
            ::_exit(0);
        }
        ending_ = is_empty();
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
    Result<std::unique_ptr<NetworkDriver>> driver_;
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
    const auto record = TRY(NetworkStore(store).find(network));
    const auto loop = TRY(EventLoop::create());
    return SwitchProcess(store, *loop, std::move(listener)).run(record);
}

}  // namespace masu::cli

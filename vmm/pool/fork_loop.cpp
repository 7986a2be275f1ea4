// The side that forks: one thread, no event loop, nothing of KVM.
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <map>
#include <optional>

#include "base/clock.hpp"
#include "base/passed_descriptors.hpp"
#include "vmm/pool/fork_messages.hpp"
#include "vmm/pool/fork_server.hpp"

namespace masu::pool {
namespace {

constexpr int first_descriptor = 3;
constexpr Nanoseconds patience = 5'000'000'000;  // of children that see their owner gone

struct Order {
    ForkOrder head;
    std::vector<std::string> arguments;
    std::vector<Fd> descriptors;
};

// Nothing at the end of the socket.
std::optional<Order> receive(int socket) {
    std::vector<char> packet(max_fork_packet);
    auto received = receive_with_descriptors(socket, std::as_writable_bytes(std::span(packet)));
    const auto size = received.size;
    Order order;
    order.descriptors = std::move(received.passed);
    if (order.descriptors.size() > max_worker_descriptors)
        order.descriptors.resize(max_worker_descriptors);
    if (size < static_cast<ssize_t>(sizeof order.head))
        return std::nullopt;
    std::memcpy(&order.head, packet.data(), sizeof order.head);
    std::string_view text(packet.data() + sizeof order.head,
                          static_cast<std::size_t>(size) - sizeof order.head);
    while (order.arguments.size() < order.head.argument_count && !text.empty()) {
        const auto end = std::min(text.find('\0'), text.size() - 1);
        order.arguments.emplace_back(text.substr(0, end));
        text.remove_prefix(end + 1);
    }
    return order;
}

// Moves the descriptors to 3, 4, ... and closes all others.
bool arrange(std::vector<Fd>& descriptors) {
    constexpr int clear = first_descriptor + static_cast<int>(max_worker_descriptors);
    for (auto& fd : descriptors)
        fd.reset(::fcntl(fd.get(), F_DUPFD, clear));
    int next = first_descriptor;
    for (const auto& fd : descriptors)
        if (!fd || ::dup2(fd.get(), next++) < 0)
            return false;
    for (auto& fd : descriptors)
        std::ignore = fd.release();  // closed with the rest
    return ::close_range(static_cast<unsigned>(next), ~0U, 0) == 0;
}

[[noreturn]] void be_child(Order& order, pid_t parent,
                           const std::function<int(std::span<std::string>)>& child_main) {
    sigset_t child_end;
    sigemptyset(&child_end);
    sigaddset(&child_end, SIGCHLD);
    ::sigprocmask(SIG_UNBLOCK, &child_end, nullptr);
    ::prctl(PR_SET_NAME, "masu-vmm");
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent || !arrange(order.descriptors))
        ::_exit(127);
    const int status = child_main(order.arguments);
    std::fflush(nullptr);
    ::_exit(status);
}

class Children {
  public:
    explicit Children(int owner) : owner_(owner) {}

    void fork(Order order, const std::function<int(std::span<std::string>)>& child_main) {
        const auto parent = ::getpid();
        const auto pid = ::fork();
        if (pid == 0)
            be_child(order, parent, child_main);
        if (pid < 0) {
            tell({ForkEvent::Kind::Ended, 127 << 8, order.head.worker});
            return;
        }
        workers_.emplace(pid, order.head.worker);
        tell({ForkEvent::Kind::Started, pid, order.head.worker});
    }
    // A pid is the child's until it has been waited for, which only reap() does.
    void kill(std::uint64_t worker) const {
        for (const auto& [pid, number] : workers_)
            if (number == worker)
                ::kill(pid, SIGKILL);
    }
    void kill_all() const {
        for (const auto& [pid, number] : workers_)
            ::kill(pid, SIGKILL);
    }
    void reap() {
        int status = 0;
        for (pid_t pid = ::waitpid(-1, &status, WNOHANG); pid > 0;
             pid = ::waitpid(-1, &status, WNOHANG)) {
            const auto found = workers_.find(pid);
            if (found == workers_.end())
                continue;
            tell({ForkEvent::Kind::Ended, status, found->second});
            workers_.erase(found);
        }
    }
    [[nodiscard]] bool empty() const noexcept { return workers_.empty(); }

  private:
    void tell(const ForkEvent& event) const {
        static_cast<void>(::send(owner_, &event, sizeof event, MSG_NOSIGNAL));
    }
    int owner_;
    std::map<pid_t, std::uint64_t> workers_;
};

Result<Fd> watch_children() {
    sigset_t child_end;
    sigemptyset(&child_end);
    sigaddset(&child_end, SIGCHLD);
    ::sigprocmask(SIG_BLOCK, &child_end, nullptr);
    Fd fd(::signalfd(-1, &child_end, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!fd)
        return fail_errno(errno, "cannot watch for children that end");
    return fd;
}

}  // namespace

Result<> serve_forks(Fd socket,
                     const std::function<int(std::span<std::string> arguments)>& child_main) {
    ::fcntl(socket.get(), F_SETFD, FD_CLOEXEC);
    ::prctl(PR_SET_NAME, "masu-vmm-forks");  // what ran it may have been called by another name
    const auto child_ends = TRY(watch_children());
    const SystemClock clock;
    Children children(socket.get());
    std::optional<Nanoseconds> deadline;  // since the owner has gone
    while (!deadline || !children.empty()) {
        std::array<pollfd, 2> polled{
            {{child_ends.get(), POLLIN, 0}, {deadline ? -1 : socket.get(), POLLIN, 0}}};
        if (deadline && clock.now() >= *deadline)
            children.kill_all();
        if (::poll(polled.data(), polled.size(), deadline ? 100 : -1) < 0 && errno != EINTR)
            return fail_errno(errno, "cannot wait for orders");
        signalfd_siginfo ignored{};
        while (::read(child_ends.get(), &ignored, sizeof ignored) > 0) {
        }
        children.reap();
        if (polled[1].revents == 0)
            continue;
        auto order = receive(socket.get());
        if (!order)
            deadline = clock.now() + patience;
        else if (order->head.kind == ForkOrder::Kind::Kill)
            children.kill(order->head.worker);
        else
            children.fork(*std::move(order), child_main);
    }
    return {};
}

}  // namespace masu::pool

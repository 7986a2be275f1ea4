// The pool's side: orders out, events in.
#include "vmm/pool/fork_server.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "base/passed_descriptors.hpp"
#include "vmm/pool/fork_messages.hpp"

extern char** environ;

namespace masu::pool {
namespace {

constexpr int child_socket = 3;

// posix_spawn does not copy the caller's page tables, however large it is.
Result<pid_t> spawn(const std::string& program, int socket) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawnattr_init(&attributes);
    ::posix_spawn_file_actions_adddup2(&actions, socket, child_socket);
    ::posix_spawn_file_actions_addclosefrom_np(&actions, child_socket + 1);
    sigset_t none;
    sigemptyset(&none);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    std::array<std::string, 3> words{program, "--fork-server-fd", std::to_string(child_socket)};
    std::array<char*, 4> arguments{words[0].data(), words[1].data(), words[2].data(), nullptr};
    pid_t pid = 0;
    const int error =
        ::posix_spawn(&pid, program.c_str(), &actions, &attributes, arguments.data(), environ);
    ::posix_spawnattr_destroy(&attributes);
    ::posix_spawn_file_actions_destroy(&actions);
    if (error != 0)
        return fail_errno(error, "cannot run {}", program);
    return pid;
}

}  // namespace

Result<std::unique_ptr<ForkServer>> ForkServer::start(EventLoop& loop, const std::string& program) {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return fail_errno(errno, "cannot make a socket for the process that forks");
    Fd ours(pair[0]);
    Fd theirs(pair[1]);
    // dup2() onto itself would leave close-on-exec set.
    if (theirs.get() == child_socket)
        theirs = TRY(theirs.duplicate());
    const auto pid = TRY(spawn(program, theirs.get()));
    std::unique_ptr<ForkServer> server(new ForkServer(std::move(ours), pid));
    auto* self = server.get();
    self->watch_ = TRY(
        loop.watch(self->socket_.get(), EPOLLIN, [self](std::uint32_t) { self->read_events(); }));
    return server;
}

ForkServer::~ForkServer() {
    watch_ = {};
    socket_.reset();
    ::waitpid(pid_, nullptr, 0);
}

Result<> ForkServer::start(std::uint64_t worker, const std::vector<std::string>& arguments,
                           std::span<const Fd> descriptors) {
    if (descriptors.size() > max_worker_descriptors)
        return fail("a worker can be given {} descriptors, not {}", max_worker_descriptors,
                    descriptors.size());
    const ForkOrder order{.kind = ForkOrder::Kind::Fork,
                          .argument_count = static_cast<std::uint32_t>(arguments.size()),
                          .worker = worker};
    std::string packet(reinterpret_cast<const char*>(&order), sizeof order);
    for (const auto& argument : arguments) {
        packet += argument;
        packet += '\0';
    }
    if (packet.size() > max_fork_packet)
        return fail("the arguments of a worker are too long");
    if (send_with_descriptors(socket_.get(), std::as_bytes(std::span(packet)), descriptors) < 0)
        return fail_errno(errno, "the process that forks takes no order");
    return {};
}

void ForkServer::kill(std::uint64_t worker) {
    const ForkOrder order{.kind = ForkOrder::Kind::Kill, .worker = worker};
    // It has gone: then so have the workers.
    static_cast<void>(::send(socket_.get(), &order, sizeof order, MSG_NOSIGNAL));
}

// A bounded number a round, so that others have their turn.
void ForkServer::read_events() {
    for (int i = 0; i < 64; ++i) {
        ForkEvent event;
        const auto size = ::recv(socket_.get(), &event, sizeof event, MSG_DONTWAIT);
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (size != sizeof event) {
            watch_ = {};
            if (events_.lost)
                events_.lost("the process that forks workers has ended");
            return;
        }
        const auto& handler_missing =
            event.kind == ForkEvent::Kind::Started ? !events_.started : !events_.ended;
        if (handler_missing)
            continue;
        if (event.kind == ForkEvent::Kind::Started)
            events_.started(event.worker, event.value);
        else
            events_.ended(event.worker, event.value);
    }
}

}  // namespace masu::pool

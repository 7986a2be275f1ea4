// The process that forks, with children that are no monitors.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "vmm/pool/fork_messages.hpp"
#include "vmm/pool/fork_server.hpp"

using namespace masu;
using namespace masu::pool;

namespace {

constexpr int patience_ms = 10'000;

// Tells over its first descriptor which arguments and descriptors it has, then waits until that is
// closed, or for ever.
int child_main(std::span<std::string> arguments) {
    std::string text;
    for (const auto& argument : arguments)
        text += argument + ";";
    for (int fd = 3; fd < 64; ++fd)
        if (::fcntl(fd, F_GETFD) >= 0)
            text += std::to_string(fd) + ",";
    std::ignore = ::write(3, text.data(), text.size());
    if (arguments.size() > 1 && arguments[1] == "stubborn")
        for (;;)
            ::pause();
    char byte = 0;
    while (::read(3, &byte, 1) > 0) {
    }
    return 7;
}

struct Forker {
    Fd socket;
    pid_t pid = 0;

    Forker() {
        int pair[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        socket.reset(pair[0]);
        pid = ::fork();
        if (pid == 0) {
            ::close(pair[0]);
            ::_exit(serve_forks(Fd(pair[1]), child_main) ? 0 : 1);
        }
        ::close(pair[1]);
    }
    ~Forker() {
        socket.reset();
        if (pid != 0)
            ::waitpid(pid, nullptr, 0);
    }
    Fd fork(std::uint64_t worker, const std::string& argument) {
        int pair[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        const Fd theirs(pair[1]);
        const ForkOrder order{.kind = ForkOrder::Kind::Fork, .argument_count = 2, .worker = worker};
        std::string packet(reinterpret_cast<const char*>(&order), sizeof order);
        packet += std::string("child\0", 6) + argument + '\0';
        iovec piece{packet.data(), packet.size()};
        alignas(cmsghdr) std::array<char, CMSG_SPACE(2 * sizeof(int))> control{};
        msghdr message{.msg_iov = &piece,
                       .msg_iovlen = 1,
                       .msg_control = control.data(),
                       .msg_controllen = control.size()};
        auto* header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(2 * sizeof(int));
        const std::array numbers{theirs.get(), theirs.get()};
        std::memcpy(CMSG_DATA(header), numbers.data(), sizeof numbers);
        REQUIRE(::sendmsg(socket.get(), &message, 0) > 0);
        return Fd(pair[0]);
    }
    ForkEvent event() {
        pollfd polled{socket.get(), POLLIN, 0};
        REQUIRE(::poll(&polled, 1, patience_ms) == 1);
        ForkEvent event;
        REQUIRE(::recv(socket.get(), &event, sizeof event, 0) == sizeof event);
        return event;
    }
};

std::string read_text(const Fd& fd) {
    pollfd polled{fd.get(), POLLIN, 0};
    REQUIRE(::poll(&polled, 1, patience_ms) == 1);
    std::array<char, 256> buffer{};
    const auto count = ::read(fd.get(), buffer.data(), buffer.size());
    return {buffer.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0))};
}

}  // namespace

TEST_CASE("a child has its arguments, its descriptors and no others, and its end is told") {
    Forker forker;
    auto child = forker.fork(11, "a b");
    const auto started = forker.event();
    CHECK(started.kind == ForkEvent::Kind::Started);
    CHECK(started.worker == 11);
    CHECK(started.value > 0);
    CHECK(read_text(child) == "child;a b;3,4,");
    child.reset();
    const auto ended = forker.event();
    CHECK(ended.kind == ForkEvent::Kind::Ended);
    CHECK(ended.worker == 11);
    CHECK(WEXITSTATUS(ended.value) == 7);
}

TEST_CASE("a child that does not end is killed by its number") {
    Forker forker;
    const auto child = forker.fork(1, "stubborn");
    CHECK(forker.event().kind == ForkEvent::Kind::Started);
    read_text(child);
    const ForkOrder order{.kind = ForkOrder::Kind::Kill, .worker = 1};
    REQUIRE(::send(forker.socket.get(), &order, sizeof order, 0) == sizeof order);
    const auto ended = forker.event();
    CHECK(ended.worker == 1);
    CHECK(WTERMSIG(ended.value) == SIGKILL);
}

TEST_CASE("the children end with the process that forks, however that ends") {
    Forker forker;
    const auto child = forker.fork(1, "stubborn");
    CHECK(forker.event().kind == ForkEvent::Kind::Started);
    read_text(child);
    ::kill(forker.pid, SIGKILL);
    ::waitpid(std::exchange(forker.pid, 0), nullptr, 0);
    CHECK(read_text(child).empty());  // the end of file: nobody has the other end
}

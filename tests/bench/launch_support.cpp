#include "tests/bench/launch_support.hpp"

#include <spawn.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

extern char** environ;

namespace masu::bench {

std::pair<Fd, Fd> socket_pair() {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        require<void>(fail_errno(errno, "cannot make sockets"));
    return {Fd(pair[0]), Fd(pair[1])};
}

pid_t spawn(std::span<const std::string> command, std::span<const int> descriptors) {
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    int next = 3;
    // Above all of them, so that none is overwritten before it is moved.
    const int away = std::ranges::max(descriptors);
    for (const int fd : descriptors)
        ::posix_spawn_file_actions_adddup2(&actions, fd, away + next++);
    for (int to = 3; to < next; ++to)
        ::posix_spawn_file_actions_adddup2(&actions, away + to, to);
    ::posix_spawn_file_actions_addclosefrom_np(&actions, next);
    std::vector<char*> words;
    for (const auto& word : command)
        words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    pid_t pid = 0;
    const int error = ::posix_spawn(&pid, words[0], &actions, nullptr, words.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    if (error != 0)
        require<void>(fail_errno(error, "cannot run {}", command[0]));
    return pid;
}

void read_whole(const Fd& socket, void* to, std::size_t size) {
    if (::recv(socket.get(), to, size, MSG_WAITALL) != static_cast<ssize_t>(size))
        require<void>(fail("a launched process ended early"));
}

}  // namespace masu::bench

// fork, wait.
#include "tests/unit/vmm/jail/child.hpp"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <doctest/doctest.h>

namespace masu::test {

ChildEnd in_child(const std::function<int()>& body) {
    const auto pid = ::fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        const rlimit none{};  // many of them are killed on purpose
        ::setrlimit(RLIMIT_CORE, &none);
        ::_exit(body());
    }
    int status = 0;
    REQUIRE(::waitpid(pid, &status, 0) == pid);
    return {.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1,
            .signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0};
}

ChildEnd in_filter(jail::ThreadKind kind, jail::FilterMode mode, const std::function<int()>& body) {
    return in_child([&] {
        if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || !jail::enter_filter(kind, mode))
            return 99;
        return body();
    });
}

}  // namespace masu::test

// fork, wait.
#include "tests/unit/vmm/jail/child.hpp"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include <doctest/doctest.h>

#if defined(__has_feature)
#define MASU_HAS_FEATURE(name) __has_feature(name)
#else
#define MASU_HAS_FEATURE(name) 0
#endif

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

bool has_sanitizer() {
#if defined(__SANITIZE_ADDRESS__) || MASU_HAS_FEATURE(address_sanitizer) || \
    MASU_HAS_FEATURE(thread_sanitizer) || MASU_HAS_FEATURE(memory_sanitizer)
    std::printf("skipped: a sanitizer makes system calls that no filter allows\n");
    return true;
#else
    return false;
#endif
}

}  // namespace masu::test

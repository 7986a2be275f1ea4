// A process to lock up: whatever a jail does to it, the test goes on.
#pragma once

#include <functional>

#include "vmm/jail/seccomp.hpp"

namespace masu::test {

struct ChildEnd {
    int status = 0;  // of exit
    int signal = 0;  // that killed it, or 0
};

// Runs `body` in a child; what it returns is the exit status.
[[nodiscard]] ChildEnd in_child(const std::function<int()>& body);

// The same behind no_new_privs and a filter.
[[nodiscard]] ChildEnd in_filter(jail::ThreadKind kind, jail::FilterMode mode,
                                 const std::function<int()>& body);

// Whether a sanitizer's runtime is in the process, which makes system calls that no filter allows
// when a thread starts or memory is asked for. Says then that what needs more than a single call is
// skipped.
[[nodiscard]] bool has_sanitizer();

}  // namespace masu::test

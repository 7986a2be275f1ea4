// Which system calls a thread may make (seccomp).
#pragma once

#include "base/result.hpp"
#include "vmm/jail/thread_kind.hpp"

namespace masu::jail {

// Puts the filter of its kind on the calling thread, for good; the threads it makes inherit it, and
// may narrow it further. The process must have no_new_privs. Off: nothing happens. Takes some 10
// microseconds: the programs were compiled when Masu was built (filter_rules.cpp).
[[nodiscard]] Result<> enter_filter(ThreadKind kind, FilterMode mode);

}  // namespace masu::jail

// Which system calls each kind of thread may make. Build time only: compile_filters.cpp turns it
// into programs for the kernel.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <seccomp.h>

#include "vmm/jail/thread_kind.hpp"

namespace masu::jail {

// One way in which a call is allowed: all conditions hold.
struct Rule {
    int call = 0;
    std::vector<scmp_arg_cmp> conditions = {};
    std::optional<int> refusal = std::nullopt;  // this errno instead, and the thread lives
};

[[nodiscard]] std::vector<Rule> rules_for(ThreadKind kind);

}  // namespace masu::jail

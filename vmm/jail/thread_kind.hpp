// The kinds of threads a monitor has; each may call the kernel for what it does, and for no more.
#pragma once

#include <cstdint>

namespace masu::jail {

enum class ThreadKind : std::uint8_t {
    Loop,      // everything that waits: API, console, devices' queues; makes and restores machines
    Vcpu,      // KVM_RUN, and what a guest's access to a register sets off
    Copy,      // writes a snapshot's files
    Populate,  // brings the working set in
    Watch,     // hears of the end of whoever serves guest memory, and tells of it
};
inline constexpr unsigned thread_kinds = 5;

// What a call that a filter does not allow meets.
enum class FilterMode : std::uint8_t {
    Off,      // there is no filter, and no jail
    Log,      // the kernel's log tells of it, and it goes on: to find out what is missing
    Enforce,  // the process is killed (SIGSYS), and the kernel's log tells of it
};

}  // namespace masu::jail

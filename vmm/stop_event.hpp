// Why a machine stopped by itself.
#pragma once

#include <string>

namespace masu {

enum class StopKind {
    PowerOff,     // the guest switched itself off (ACPI S5)
    Reset,        // the guest asked for a reset (ACPI reset register, i8042)
    Panic,        // the guest's kernel reported a panic, then reset, halted or hung up
    TripleFault,  // KVM_EXIT_SHUTDOWN
    Error,        // KVM or the monitor failed; see reason
};

struct StopEvent {
    StopKind kind = StopKind::Error;
    std::string reason;  // one line for a person
};

}  // namespace masu

// Runs a whole machine, as the monitor puts it together, to its end, and tells what came of it.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "vmm/machine.hpp"

namespace masu::test {

struct Ended {
    std::string console;
    std::optional<StopEvent> stop;  // none: it still ran when patience ended
    bool entry = false, loader = false, handover = false;

    [[nodiscard]] bool says(std::string_view text) const {
        return console.find(text) != std::string::npos;
    }
};

// What somebody at the console does.
struct Typing {
    std::string wait_for;  // once this is on the console,
    std::string type;      // this is typed
};

// At most for `patience`, in ns.
[[nodiscard]] Ended run_machine(const VmConfig& config, Nanoseconds patience,
                                const Typing& typing = {});

}  // namespace masu::test

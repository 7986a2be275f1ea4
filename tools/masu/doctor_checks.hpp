// The questions `masu doctor` asks this machine.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <boost/json/object.hpp>

#include "base/result.hpp"

namespace masu::cli {

enum class Verdict {
    Good,
    Note,     // VMs run; something is slower, or an optional thing is missing
    Problem,  // VMs do not run here directly
};

struct Check {
    std::string name;  // "kvm", "memory", ...
    Verdict verdict = Verdict::Good;
    std::string finding;  // one sentence
    std::string remedy;   // one sentence, or empty
    std::vector<std::string> details;
};

// Every check, in the order to read them. Starts a probe guest; takes at most some two seconds.
[[nodiscard]] std::vector<Check> check_machine();

// MemAvailable of /proc/meminfo's text, in bytes.
[[nodiscard]] std::optional<std::uint64_t> available_memory(std::string_view meminfo);

}  // namespace masu::cli

// The options of commands that start a VM which say how its flows are logged.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.hpp"

namespace CLI {
class App;
}

namespace masu::cli {

struct FlowLogOptions {
    bool on = false;
    std::string format;                     // AWS's "${srcaddr} ${dstaddr}"; empty: version 2
    std::optional<std::uint32_t> interval;  // seconds of a window, 1 to 600
};

// --flow-logs, and --log-format and --max-aggregation-interval, which imply it. `options` outlives
// the command.
void add_flow_log_options(CLI::App& command, FlowLogOptions& options);

// Refuses a format that names an unknown field.
[[nodiscard]] Result<> check(const FlowLogOptions& options);

}  // namespace masu::cli

// Parses --flow-logs and what goes with it.
#include "tools/masu/flow_log_options.hpp"

#include <CLI/App.hpp>

#include "devices/net/flow_log_format.hpp"

namespace masu::cli {

void add_flow_log_options(CLI::App& command, FlowLogOptions& options) {
    command.add_flag("--flow-logs", options.on,
                     "Keep a log of which flows pass and which do not; masu flow-logs shows it");
    command
        .add_option_function<std::string>(
            "--log-format",
            [&options](const std::string& format) {
                options.on = true;
                options.format = format;
            },
            "Keep a flow log of these fields, written as AWS does: '${srcaddr} ${dstaddr} "
            "${action}' (default: version 2)")
        ->type_name("FORMAT");
    command
        .add_option_function<std::uint32_t>(
            "--max-aggregation-interval",
            [&options](const std::uint32_t& seconds) {
                options.on = true;
                options.interval = seconds;
            },
            "Keep a flow log in which a line covers so many seconds at most: 1 to 600 (default "
            "60)")
        ->type_name("SECONDS")
        ->check(CLI::Range(1U, 600U));
}

Result<> check(const FlowLogOptions& options) {
    if (options.format.empty())
        return {};
    if (auto format = net::FlowLogFormat::parse(options.format); !format)
        return in_context("--log-format", std::move(format.error()));
    return {};
}

}  // namespace masu::cli

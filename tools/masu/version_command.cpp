// masu version.
#include <CLI/App.hpp>
#include <cstdio>
#include <memory>

#include <boost/json.hpp>

#include "tools/masu/commands.hpp"
#include "tools/masu/monitor_process.hpp"

namespace masu::cli {
namespace {

Result<int> show_version(OutputFormat format) {
    const auto monitor = find_monitor();
    if (format == OutputFormat::Json) {
        boost::json::object object{{"version", MASU_VERSION}};
        object["monitor"] = monitor ? boost::json::value(*monitor) : boost::json::value();
        std::puts(boost::json::serialize(object).c_str());
        return 0;
    }
    std::printf("masu %s\nmonitor: %s\n", MASU_VERSION,
                monitor ? monitor->c_str() : monitor.error().message.c_str());
    return 0;
}

}  // namespace

void add_version_command(CLI::App& program, Invocation& invocation) {
    auto* command =
        program.add_subcommand("version", "Print the version, and which monitor is used");
    auto format = std::make_shared<OutputFormat>(OutputFormat::Text);
    add_output_option(*command, *format);
    command->footer("Example:\n  masu version --output json");
    command->callback(
        [format, &invocation] { invocation.run = [format] { return show_version(*format); }; });
}

}  // namespace masu::cli

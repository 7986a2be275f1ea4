// masu sg counters: what a running VM's firewall has let pass and dropped, and by which rule.
#include <CLI/App.hpp>
#include <cstdio>
#include <memory>

#include <boost/json.hpp>

#include "tools/masu/commands.hpp"
#include "tools/masu/json_output.hpp"
#include "tools/masu/monitor_client.hpp"
#include "tools/masu/monitor_process.hpp"

namespace masu::cli {
namespace {

struct Options {
    std::string vm;
    std::string interface = "net0";
    OutputFormat format = OutputFormat::Text;
};

std::string line(std::string_view what, const boost::json::value& count) {
    return fmt::format("{:<26} {:>12} {:>16}\n", what,
                       count.at("packets").to_number<std::uint64_t>(),
                       count.at("bytes").to_number<std::uint64_t>());
}

// Verdicts that were never given are left out, rules that never admitted anything are not.
std::string table(const boost::json::value& report) {
    auto text = fmt::format("{:<26} {:>12} {:>16}\n", "VERDICT", "PACKETS", "BYTES");
    for (const auto& [verdict, count] : report.at("verdicts").as_object())
        if (count.at("packets").to_number<std::uint64_t>() != 0)
            text += line(std::string_view(verdict), count);
    text += fmt::format("\n{:<26} {:>12} {:>16}\n", "RULE", "PACKETS", "BYTES");
    for (const auto& rule : report.at("rules").as_array())
        text += line(std::string(rule.at("id").as_string()), rule);
    const auto number = [&](const char* key) { return report.at(key).to_number<std::uint64_t>(); };
    return text + fmt::format("\n{} flows, room for {} more; {} packets found none\n",
                              number("flows"), number("conntrack_allowance_available"),
                              number("conntrack_allowance_exceeded"));
}

Result<int> show(const Options& options) {
    const auto store = TRY(open_store());
    const auto folder = TRY(store.find(options.vm));
    const auto record = TRY(folder.record());
    if (!TRY(running_monitor(folder, record)))
        return fail("{} is not running", options.vm);
    const MonitorClient client(record.api_socket(), record.name);
    const auto report = TRY(client.get("/network-interfaces/" + options.interface + "/firewall"));
    if (options.format == OutputFormat::Json) {
        print_json(report);
        return 0;
    }
    try {
        const auto text = table(report);
        std::fwrite(text.data(), 1, text.size(), stdout);
    } catch (const std::exception& error) {
        return fail("the monitor of {} is of another version: {}", options.vm, error.what());
    }
    return 0;
}

}  // namespace

void add_sg_counters_command(CLI::App& sg, Invocation& invocation) {
    auto* command = sg.add_subcommand(
        "counters", "Show how many packets of a running VM passed, and why the others did not");
    auto options = std::make_shared<Options>();
    command->add_option("vm", options->vm, "Name of the VM")->type_name(vm_value)->required();
    command->add_option("--interface", options->interface, "Which interface (default net0)")
        ->type_name("ID")
        ->check([](const std::string& id) -> std::string {
            return id.contains('/') ? "\"" + id + "\" is no interface" : "";
        });
    add_output_option(*command, options->format);
    command->footer(
        "A rule counts every packet of an untracked flow that it admits, and the first of a "
        "tracked\n"
        "one.\n"
        "\n"
        "Example:\n"
        "  masu sg counters web");
    command->callback(
        [options, &invocation] { invocation.run = [options] { return show(*options); }; });
}

}  // namespace masu::cli

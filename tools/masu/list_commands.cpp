// masu ps, masu inspect: what there is, and what it is.
#include <CLI/App.hpp>
#include <cstdio>
#include <memory>

#include <boost/json.hpp>

#include "base/bytes.hpp"
#include "tools/masu/commands.hpp"
#include "tools/masu/json_output.hpp"
#include "tools/masu/monitor_client.hpp"
#include "tools/masu/vm_status.hpp"

namespace masu::cli {
namespace {

struct PsOptions {
    bool all = false;
    bool names = false;
    OutputFormat format = OutputFormat::Text;
};

void print(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
}

std::string table_line(const VmStatus& status) {
    const auto& record = status.record;
    return fmt::format("{:<20} {:>4} {:>9} {:>8}  {}\n", status.folder.name(),
                       record ? std::to_string(record->cpus) : "?",
                       record ? format_size(record->memory_mib * MiB) : "?",
                       record ? format_age(record->created) : "?", status.text());
}

Result<int> list(const PsOptions& options) {
    const auto store = TRY(open_store());
    boost::json::array array;
    std::string table =
        fmt::format("{:<20} {:>4} {:>9} {:>8}  {}\n", "NAME", "CPUS", "MEMORY", "AGE", "STATE");
    std::string names;
    for (const auto& folder : TRY(store.all())) {
        if (options.names && options.all) {
            names += folder.name() + "\n";
            continue;
        }
        const auto status = look_at(folder);
        if (!options.all && !status.alive())
            continue;
        names += folder.name() + "\n";
        array.push_back(to_json(status));
        table += table_line(status);
    }
    if (options.names)
        print(names);
    else if (options.format == OutputFormat::Json)
        print_json(array);
    else
        print(table);
    return 0;
}

// What the monitor adds while it lives; what it does not answer is left out.
void add_live_facts(boost::json::object& object, const VmStatus& status) {
    if (!status.alive() || !status.record)
        return;
    const MonitorClient client(status.record->api_socket(), status.record->name);
    if (const auto instance = client.get("/"))
        if (const auto* facts = instance->if_object(); facts != nullptr && facts->contains("jail"))
            object["jail"] = facts->at("jail");
    if (auto config = client.get("/vm/config"))
        object["config"] = *std::move(config);
    if (auto timer = client.get("/boot-timer"))
        object["boot_timer"] = *std::move(timer);
}

boost::json::object describe(const VmStatus& status) {
    boost::json::object object = to_json(status);
    if (status.record)
        for (auto& [key, value] : to_json(*status.record))
            if (key != "pid")
                object[key] = std::move(value);
    object["console_log"] = status.folder.console_log();
    object["monitor_log"] = status.folder.monitor_log();
    if (status.state == VmState::Stopped)
        if (const auto end = status.folder.exit_record())
            object["exit"] = boost::json::object{{"status", end->status},
                                                 {"kind", end->kind},
                                                 {"reason", end->reason},
                                                 {"wall_time", end->wall_time}};
    add_live_facts(object, status);
    return object;
}

Result<int> inspect(const std::string& name, OutputFormat format) {
    const auto store = TRY(open_store());
    const auto object = describe(look_at(TRY(store.find(name))));
    if (format == OutputFormat::Json) {
        print_json(object);
        return 0;
    }
    for (const auto& member : object) {
        if (!member.value().is_array()) {
            print(fmt::format("{:<14} {}\n", std::string_view(member.key()),
                              plain_text(member.value())));
            continue;
        }
        for (const auto& element : member.value().get_array())
            print(fmt::format("{:<14} {}\n", std::string_view(member.key()), plain_text(element)));
    }
    return 0;
}

}  // namespace

void add_ps_command(CLI::App& program, Invocation& invocation) {
    auto* command = program.add_subcommand("ps", "List VMs");
    auto options = std::make_shared<PsOptions>();
    command->add_flag("-a,--all", options->all, "Also those that have ended");
    command->add_flag("-q,--names", options->names, "Names only");
    add_output_option(*command, options->format);
    command->footer(
        "A VM is running for exactly as long as its monitor lives. \"stopped\" tells how it "
        "ended;\n"
        "\"dead\" means that its monitor was killed.\n"
        "\n"
        "Examples:\n"
        "  masu ps\n"
        "  masu ps -a --output json\n"
        "  masu rm $(masu ps -aq)");
    command->callback(
        [options, &invocation] { invocation.run = [options] { return list(*options); }; });
}

void add_inspect_command(CLI::App& program, Invocation& invocation) {
    struct Options {
        std::string name;
        OutputFormat format = OutputFormat::Text;
    };
    auto* command = program.add_subcommand("inspect", "Show everything about a VM");
    auto options = std::make_shared<Options>();
    command->add_option("vm", options->name, "Name of the VM")->type_name(vm_value)->required();
    add_output_option(*command, options->format);
    command->footer(
        "Examples:\n"
        "  masu inspect web\n"
        "  masu inspect web --output json | jq .config");
    command->callback([options, &invocation] {
        invocation.run = [options] { return inspect(options->name, options->format); };
    });
}

}  // namespace masu::cli

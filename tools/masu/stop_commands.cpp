// masu stop, masu kill, masu rm: the ways a VM ends.
#include <CLI/App.hpp>
#include <boost/json.hpp>
#include <ctime>
#include <memory>
#include <optional>

#include "base/atomic_file.hpp"
#include "tools/masu/commands.hpp"
#include "tools/masu/monitor_client.hpp"
#include "tools/masu/monitor_process.hpp"
#include "tools/masu/session.hpp"

namespace masu::cli {
namespace {

constexpr int kill_patience_ms = 10'000;

// One VM after the other; each failure is told, and one is enough for status 1.
Result<int> for_each(const std::vector<std::string>& names,
                     const std::function<Result<>(Store&, const std::string&)>& act) {
    auto store = TRY(open_store());
    int status = 0;
    for (const auto& name : names)
        if (const auto done = act(store, name); !done) {
            note(done.error().message);
            status = 1;
        }
    return status;
}

// The power button, as a person would press it. A paused guest must run to notice.
Result<> press_power_button(const VmRecord& record) {
    const MonitorClient client(record.api_socket(), record.name);
    const auto info = TRY(client.get("/"));
    const auto* state = info.is_object() ? info.get_object().if_contains("state") : nullptr;
    if (state != nullptr && *state == "Paused")
        TRY(client.patch("/vm", boost::json::object{{"state", "Resumed"}}));
    return client.action("PowerButton");
}

Result<> stop(Store& store, const std::string& name, std::optional<unsigned> seconds) {
    const auto folder = TRY(store.find(name));
    const auto record = TRY(folder.record());
    const auto monitor = TRY(running_monitor(folder, record));
    if (!monitor)
        return {};
    const auto grace = seconds.value_or(record.stop_timeout);
    const auto pressed = press_power_button(record);
    if (pressed && monitor->wait(static_cast<int>(grace) * 1000))
        return {};
    if (monitor->wait(0))
        return {};
    note(pressed ? fmt::format("{} did not switch itself off within {} s; stopping it hard", name,
                               grace)
                 : fmt::format("{} has no power button to press ({}); stopping it hard", name,
                               pressed.error().message));
    return stop_at_once(record, *monitor);
}

// So that ps can tell a VM that was killed on purpose from one whose monitor died.
Result<> record_kill(const VmFolder& folder) {
    if (folder.has_exit_record())
        return {};
    const boost::json::object record{{"status", 137},
                                     {"kind", "killed"},
                                     {"reason", "killed by `masu kill`"},
                                     {"wall_time", std::time(nullptr)}};
    return write_file_atomically(folder.exit_file(), boost::json::serialize(record) + "\n");
}

Result<> kill(Store& store, const std::string& name) {
    const auto folder = TRY(store.find(name));
    const auto record = TRY(folder.record());
    const auto watched = TRY(folder.watch());  // --rm shall not delete what is written here
    const auto monitor = TRY(running_monitor(folder, record));
    if (!monitor)
        return {};
    TRY(monitor->kill());
    if (!monitor->wait(kill_patience_ms))
        return fail("process {}, the monitor of {}, cannot be killed; it hangs in the kernel",
                    monitor->pid, name);
    TRY(folder.wait_until_dead());
    return record_kill(folder);
}

Result<> remove(Store& store, const std::string& name, bool force) {
    TRY(store.find(name));
    if (force)
        TRY(kill(store, name));
    return store.remove(name);
}

std::shared_ptr<std::vector<std::string>> add_names(CLI::App& command) {
    auto names = std::make_shared<std::vector<std::string>>();
    command.add_option("vm", *names, "Names of VMs")->type_name(vm_value)->required();
    return names;
}

}  // namespace

void add_stop_command(CLI::App& program, Invocation& invocation) {
    auto* command = program.add_subcommand("stop", "Press a VM's power button, and insist");
    const auto names = add_names(*command);
    auto seconds = std::make_shared<std::optional<unsigned>>();
    command
        ->add_option("-t,--time", *seconds,
                     "How long the guest has to switch itself off before it is stopped hard "
                     "(default 30, or run's --stop-timeout)")
        ->type_name("SECONDS")
        ->check(CLI::Range(0U, 1'000'000U));
    command->footer(
        "A VM that has ended already is no error.\n"
        "\n"
        "Examples:\n"
        "  masu stop web\n"
        "  masu stop --time 5 web db");
    command->callback([names, seconds, &invocation] {
        invocation.run = [names, seconds] {
            return for_each(*names, [&](Store& store, const std::string& name) {
                return stop(store, name, *seconds);
            });
        };
    });
}

void add_kill_command(CLI::App& program, Invocation& invocation) {
    auto* command = program.add_subcommand("kill", "End a VM at once, as if power were cut");
    const auto names = add_names(*command);
    command->footer(
        "What the guest has not written to its disks is lost. `masu stop` is the polite way.\n"
        "\n"
        "Example:\n"
        "  masu kill web");
    command->callback(
        [names, &invocation] { invocation.run = [names] { return for_each(*names, kill); }; });
}

void add_rm_command(CLI::App& program, Invocation& invocation) {
    auto* command = program.add_subcommand("rm", "Delete the state of VMs that have ended");
    const auto names = add_names(*command);
    auto force = std::make_shared<bool>(false);
    command->add_flag("-f,--force", *force, "Kill those that run");
    command->footer(
        "Deletes logs, settings and what the VM wrote to the disk that `masu run IMAGE` gave it;\n"
        "never an image, nor a disk or an overlay that --disk named.\n"
        "\n"
        "Examples:\n"
        "  masu rm web\n"
        "  masu rm -f web db");
    command->callback([names, force, &invocation] {
        invocation.run = [names, force] {
            return for_each(*names, [&](Store& store, const std::string& name) {
                return remove(store, name, *force);
            });
        };
    });
}

}  // namespace masu::cli

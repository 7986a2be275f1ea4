// masu snapshot create, ls, inspect and rm.
#include "tools/masu/snapshot_commands.hpp"

#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>

#include <boost/json.hpp>

#include "base/bytes.hpp"
#include "tools/masu/json_output.hpp"
#include "tools/masu/monitor_client.hpp"
#include "tools/masu/monitor_process.hpp"
#include "tools/masu/progress.hpp"
#include "tools/masu/snapshot_store.hpp"
#include "tools/masu/vm_status.hpp"

namespace masu::cli {
namespace {

// Writing the memory of the largest machine to a slow disk.
constexpr int save_timeout_ms = 3'600'000;

Result<> save(const MonitorClient& client, const VmRecord& record, const SnapshotStore& snapshots,
              const std::string& name, const std::string& path) {
    Progress progress("saving " + record.name);
    progress.stage("memory and disks", record.memory_mib * MiB);
    const std::jthread watcher([&](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            progress.update(snapshots.bytes_so_far(name));
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
        }
    });
    return client.put("/snapshot/create",
                      boost::json::object{{"directory", path},
                                          {"metadata", boost::json::serialize(to_json(record))}},
                      save_timeout_ms);
}

Result<int> create(const std::string& vm, const std::string& name, bool keep_paused) {
    const auto store = TRY(open_store());
    const auto snapshots = TRY(open_snapshot_store());
    const auto folder = TRY(store.find(vm));
    const auto record = TRY(folder.record());
    if (!TRY(running_monitor(folder, record)))
        return fail("{} is not running, and only a running VM has a state to save", vm);
    const auto path = TRY(snapshots.prepare(name));
    const MonitorClient client(record.api_socket(), vm);
    const auto info = TRY(client.get("/"));
    const auto* state = info.is_object() ? info.get_object().if_contains("state") : nullptr;
    const bool was_running = state != nullptr && *state == "Running";
    if (was_running)
        TRY(client.patch("/vm", boost::json::object{{"state", "Paused"}}));
    const auto saved = save(client, record, snapshots, name, path);
    if (was_running && !keep_paused)
        TRY(client.patch("/vm", boost::json::object{{"state", "Resumed"}}));
    if (!saved)
        return std::unexpected(saved.error());
    std::puts(name.c_str());
    return 0;
}

// VMs that live on a snapshot: its memory file is theirs until they have ended.
Result<std::vector<std::string>> users_of(const std::string& name) {
    const auto store = TRY(open_store());
    std::vector<std::string> users;
    for (const auto& folder : TRY(store.all()))
        if (const auto status = look_at(folder);
            status.alive() && status.record && status.record->snapshot == name)
            users.push_back(folder.name());
    return users;
}

boost::json::object summary(const Snapshot& snapshot, const std::vector<std::string>& users) {
    boost::json::array clones;
    for (const auto& user : users)
        clones.emplace_back(user);
    return {{"name", snapshot.name},
            {"vm", snapshot.vm.name},
            {"saved", snapshot.saved},
            {"cpus", snapshot.vm.cpus},
            {"memory_bytes", snapshot.memory_bytes},
            {"memory_stored_bytes", snapshot.memory_stored},
            {"stored_bytes", snapshot.stored_bytes()},
            {"in_use_by", std::move(clones)}};
}

Result<int> list(bool names_only, OutputFormat format) {
    const auto snapshots = TRY(open_snapshot_store());
    boost::json::array array;
    std::string table = fmt::format("{:<20} {:<16} {:>4} {:>9} {:>9} {:>8} {:>6}\n", "NAME", "VM",
                                    "CPUS", "MEMORY", "STORED", "AGE", "CLONES");
    for (const auto& name : TRY(snapshots.names())) {
        if (names_only) {
            std::puts(name.c_str());
            continue;
        }
        const auto snapshot = snapshots.find(name);
        if (!snapshot) {
            note(snapshot.error().message);
            continue;
        }
        const auto users = TRY(users_of(name));
        array.push_back(summary(*snapshot, users));
        table += fmt::format(
            "{:<20} {:<16} {:>4} {:>9} {:>9} {:>8} {:>6}\n", name, snapshot->vm.name,
            snapshot->vm.cpus, format_size(snapshot->memory_bytes),
            format_size(snapshot->stored_bytes()), format_age(snapshot->saved), users.size());
    }
    if (names_only)
        return 0;
    if (format == OutputFormat::Json)
        print_json(array);
    else
        std::fputs(table.c_str(), stdout);
    return 0;
}

void print_fact(std::string_view key, const boost::json::value& value) {
    const auto line = fmt::format("{:<20} {}\n", key, plain_text(value));
    std::fputs(line.c_str(), stdout);
}

Result<int> inspect(const std::string& name, OutputFormat format) {
    const auto snapshots = TRY(open_snapshot_store());
    const auto snapshot = TRY(snapshots.find(name));
    auto object = summary(snapshot, TRY(users_of(name)));
    object["path"] = snapshot.path;
    for (const auto* key : {"format", "masu_version", "transport", "drives"})
        if (const auto* value = snapshot.manifest.if_contains(key))
            object[key] = *value;
    if (format == OutputFormat::Json)
        print_json(object);
    else
        for (const auto& member : object)
            if (!member.value().is_array())
                print_fact(member.key(), member.value());
            else
                for (const auto& element : member.value().get_array())
                    print_fact(member.key(), element);
    return 0;
}

Result<int> remove(const std::vector<std::string>& names) {
    const auto snapshots = TRY(open_snapshot_store());
    int status = 0;
    for (const auto& name : names) {
        const auto done = [&]() -> Result<> {
            const auto held = TRY(snapshots.hold(name, true));
            TRY(snapshots.find(name));
            const auto users = TRY(users_of(name));
            if (!users.empty())
                return fail("snapshot {} is in use by {}: end them first with `masu stop`", name,
                            fmt::join(users, ", "));
            return snapshots.remove(name);
        }();
        if (!done) {
            note(done.error().message);
            status = 1;
        }
    }
    return status;
}

void add_create(CLI::App& group, Invocation& invocation) {
    struct Options {
        std::string vm;
        std::string name;
        bool keep_paused = false;
    };
    auto* command = group.add_subcommand("create", "Save a VM as it is");
    auto options = std::make_shared<Options>();
    command->add_option("vm", options->vm, "Name of the VM")->type_name(vm_value)->required();
    command->add_option("name", options->name, "Name of the snapshot")
        ->type_name("NAME")
        ->required();
    command->add_flag("--keep-paused", options->keep_paused,
                      "Leave the VM paused afterwards, as for a template nobody uses itself");
    command->footer(
        "The VM is paused meanwhile. Its disks are copied as they are at that moment, by\n"
        "reflink where the file system has that; read-only disks and overlays' bases are not\n"
        "copied and must stay as they are.\n"
        "\n"
        "Example:\n"
        "  masu snapshot create web web-warm");
    command->callback([options, &invocation] {
        invocation.run = [options] {
            return create(options->vm, options->name, options->keep_paused);
        };
    });
}

void add_ls(CLI::App& group, Invocation& invocation) {
    struct Options {
        bool names = false;
        OutputFormat format = OutputFormat::Text;
    };
    auto* command = group.add_subcommand("ls", "List snapshots");
    auto options = std::make_shared<Options>();
    command->add_flag("-q,--names", options->names, "Names only");
    add_output_option(*command, options->format);
    command->footer("Example:\n  masu snapshot ls --output json");
    command->callback([options, &invocation] {
        invocation.run = [options] { return list(options->names, options->format); };
    });
}

void add_inspect(CLI::App& group, Invocation& invocation) {
    struct Options {
        std::string name;
        OutputFormat format = OutputFormat::Text;
    };
    auto* command = group.add_subcommand("inspect", "Show everything about a snapshot");
    auto options = std::make_shared<Options>();
    command->add_option("snapshot", options->name, "Name of the snapshot")
        ->type_name(snapshot_value)
        ->required();
    add_output_option(*command, options->format);
    command->footer("Example:\n  masu snapshot inspect web-warm");
    command->callback([options, &invocation] {
        invocation.run = [options] { return inspect(options->name, options->format); };
    });
}

void add_rm(CLI::App& group, Invocation& invocation) {
    auto* command = group.add_subcommand("rm", "Delete snapshots");
    auto names = std::make_shared<std::vector<std::string>>();
    command->add_option("snapshot", *names, "Names of snapshots")
        ->type_name(snapshot_value)
        ->required();
    command->footer(
        "Refused while a VM that was restored or cloned from it runs: the snapshot's memory\n"
        "file is that VM's memory.\n"
        "\n"
        "Example:\n"
        "  masu snapshot rm web-warm");
    command->callback(
        [names, &invocation] { invocation.run = [names] { return remove(*names); }; });
}

}  // namespace

void add_snapshot_command(CLI::App& program, Invocation& invocation) {
    auto* group = program.add_subcommand("snapshot", "Save VMs, and start them from there");
    group->require_subcommand(1);
    group->footer(
        "Examples:\n"
        "  masu snapshot create web web-warm\n"
        "  masu snapshot restore web-warm --name web-again\n"
        "  masu snapshot clone web-warm --count 10\n"
        "  masu snapshot ls");
    add_create(*group, invocation);
    add_ls(*group, invocation);
    add_inspect(*group, invocation);
    add_restore(*group, invocation);
    add_clone(*group, invocation);
    add_rm(*group, invocation);
}

}  // namespace masu::cli

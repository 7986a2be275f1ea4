// masu snapshot create, ls, inspect and rm.
#include "tools/masu/snapshot_commands.hpp"

#include <unistd.h>
#include <CLI/App.hpp>

#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>

#include <boost/json.hpp>

#include "base/bytes.hpp"
#include "base/clock.hpp"
#include "tools/masu/json_output.hpp"
#include "tools/masu/monitor_client.hpp"
#include "tools/masu/monitor_process.hpp"
#include "tools/masu/progress.hpp"
#include "tools/masu/snapshot_store.hpp"
#include "tools/masu/vm_status.hpp"
#include "vmm/page_set.hpp"
#include "vmm/snapshot/save.hpp"

namespace masu::cli {
namespace {

// Writing the memory of the largest machine to a slow disk.
constexpr int save_timeout_ms = 3'600'000;

struct CreateOptions {
    std::string vm;
    std::string name;
    bool keep_paused = false;
    bool diff = false;
    bool own_pages = false;
    bool live = false;
    bool compress = false;
    OutputFormat format = OutputFormat::Text;
};

// Waits for the end of a live save; what the monitor says of it.
Result<boost::json::object> wait_for_save(const MonitorClient& client) {
    constexpr auto interval = std::chrono::milliseconds(20);
    for (;;) {
        auto answer = TRY(client.get("/snapshot/create"));
        auto& progress = answer.as_object();
        if (progress.at("state") == "failed")
            return fail("{}", std::string(progress.at("error").as_string()));
        if (progress.at("state") != "running")
            return std::move(progress);
        std::this_thread::sleep_for(interval);
    }
}

Result<boost::json::object> save(const MonitorClient& client, const VmRecord& record,
                                 const CreateOptions& options, const std::string& path) {
    Progress progress("saving " + record.name);
    progress.stage("memory and disks", record.memory_mib * MiB);
    const std::jthread watcher([&](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            progress.update(SnapshotStore::bytes_so_far(path));
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
        }
    });
    boost::json::object body{{"directory", path},
                             {"metadata", boost::json::serialize(to_json(record))}};
    if (options.diff) {
        body["snapshot_type"] = "Diff";
        body["own_pages"] = options.own_pages;
    }
    if (options.live)
        body["live"] = true;
    TRY(client.put("/snapshot/create", body, save_timeout_ms));
    return wait_for_save(client);
}

// A snapshot of own pages whose parent is gone is good for nothing.
Result<> check_parent(const SnapshotStore& snapshots, const std::string& name) {
    const auto snapshot = TRY(snapshots.find(name));
    if (snapshot.whole() || TRY(snapshots.parent_of(snapshot)))
        return {};
    TRY(snapshots.remove(name));
    return fail("the snapshot {} that {} would build on was deleted; save the VM whole",
                snapshot.parent_path, name);
}

void show_saved(const CreateOptions& options, boost::json::object saved, Nanoseconds pause) {
    if (!saved.contains("pause_us"))
        saved["pause_us"] = pause / 1000;
    saved.erase("state");
    saved["name"] = options.name;
    if (options.format == OutputFormat::Json) {
        print_json(saved);
        return;
    }
    if (options.live)
        note(fmt::format("{} stood still for {} us, after {} rounds of copying while it ran",
                         options.vm, plain_text(saved["pause_us"]),
                         saved["rounds"].is_null() ? "0" : plain_text(saved["rounds"])));
    if (options.diff && saved["memory_form"] == "whole")
        note(
            fmt::format("{} was saved whole: nothing is known of what it wrote since a snapshot; "
                        "start it with --track-dirty-pages",
                        options.vm));
    std::puts(options.name.c_str());
}

Result<int> create(const CreateOptions& options) {
    const auto& [vm, name, keep_paused, diff, own_pages, live, compressed, format] = options;
    const auto store = TRY(open_store());
    const auto snapshots = TRY(open_snapshot_store());
    const auto folder = TRY(store.find(vm));
    const auto record = TRY(folder.record());
    if (!TRY(running_monitor(folder, record)))
        return fail("{} is not running, and only a running VM has a state to save", vm);
    const auto kept = TRY(snapshots.prepare(name));
    // The jail keeps the monitor from the snapshots that are there already.
    const auto path = record.jail ? folder.file("snapshot-" + name) : kept;
    const MonitorClient client(record.api_socket(), vm);
    const auto info = TRY(client.get("/"));
    const auto* state = info.is_object() ? info.get_object().if_contains("state") : nullptr;
    const bool was_running = state != nullptr && *state == "Running";
    const SystemClock clock;
    const auto begun = clock.now();
    const bool pause = was_running && !live;
    if (pause)
        TRY(client.patch("/vm", boost::json::object{{"state", "Paused"}}));
    const auto saved = save(client, record, options, path);
    if (pause && !keep_paused)
        TRY(client.patch("/vm", boost::json::object{{"state", "Resumed"}}));
    if (!saved)
        return std::unexpected(saved.error());
    if (path != kept)
        TRY(snapshots.adopt(path, name));
    TRY(check_parent(snapshots, name));
    if (compressed) {
        const auto held = TRY(snapshots.hold(name, true));
        const auto snapshot = TRY(snapshots.find(name));
        TRY(compress(snapshots, snapshot));
    }
    show_saved(options, *saved, clock.now() - begun);
    return 0;
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
            {"memory_form", snapshot.memory_form},
            {"memory_file", to_string(snapshot.memory_file)},
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
    object["own_pages"] = snapshot.memory_written / guest_page;
    // What lies in extents that the file system shares with the snapshot below.
    object["shared_pages"] =
        snapshot.memory_form == "on-base" ? TRY(snapshots.shared_bytes(snapshot)) / guest_page : 0;
    const auto working_set = snapshot.path + "/" + snapshot::working_set_name;
    if (::access(working_set.c_str(), F_OK) == 0) {
        const auto list = snapshot::load_page_list(working_set, snapshot::PageListKind::WorkingSet,
                                                   snapshot.memory_bytes);
        if (list)
            object["working_set_pages"] = list->pages();
        else
            note(list.error().message);
    }
    boost::json::array chain;
    for (const auto& below : TRY(snapshots.chain_of(snapshot)))
        chain.emplace_back(below.name);
    object["builds_on"] = std::move(chain);
    auto above = TRY(snapshots.children_of(snapshot));
    std::ranges::copy(TRY(snapshots.overlaid_by(snapshot)), std::back_inserter(above));
    std::ranges::sort(above);
    above.erase(std::ranges::unique(above).begin(), above.end());
    object["needed_by"] = boost::json::array(above.begin(), above.end());
    for (const auto* key : {"format", "masu_version", "transport", "cpu_template", "cpu_vendor",
                            "cpu_level", "drives"})
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
            const auto snapshot = TRY(snapshots.find(name));
            if (const auto needed = TRY(snapshots.children_of(snapshot)); !needed.empty())
                return fail(
                    "snapshot {} is needed by {}, which only hold what was written since: make "
                    "them whole with `masu snapshot collapse`, or delete them first",
                    name, fmt::join(needed, ", "));
            if (const auto above = TRY(snapshots.overlaid_by(snapshot)); !above.empty())
                return fail(
                    "snapshot {} is needed by {}, whose disks are overlays over the disks in it: "
                    "delete them first",
                    name, fmt::join(above, ", "));
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
    auto* command = group.add_subcommand("create", "Save a VM as it is");
    auto options = std::make_shared<CreateOptions>();
    command->add_option("vm", options->vm, "Name of the VM")->type_name(vm_value)->required();
    command->add_option("name", options->name, "Name of the snapshot")
        ->type_name("NAME")
        ->required();
    auto* keep =
        command->add_flag("--keep-paused", options->keep_paused,
                          "Leave the VM paused afterwards, as for a template nobody uses itself");
    command
        ->add_flag("--live", options->live,
                   "Copy memory while the VM runs, and stop it for the last of it only")
        ->excludes(keep);
    auto* diff = command->add_flag(
        "--diff", options->diff,
        "Write only the pages that changed since the VM's last snapshot, over a copy of that");
    auto* own =
        command
            ->add_flag("--own-pages", options->own_pages,
                       "With --diff: keep those pages and no copy; see `masu snapshot collapse`")
            ->needs(diff);
    command
        ->add_flag("--compress", options->compress,
                   "Compress the memory file, once the VM goes on; see `masu snapshot compress`")
        ->excludes(own);
    add_output_option(*command, options->format);
    command->footer(
        "The VM is paused meanwhile, unless --live is given. Its disks are copied as they are at "
        "that moment, by\n"
        "reflink where the file system has that; read-only disks and overlays' bases are not\n"
        "copied and must stay as they are.\n"
        "\n"
        "Example:\n"
        "  masu snapshot create web web-warm\n"
        "  masu snapshot create web web-warm-2 --diff --live");
    command->callback(
        [options, &invocation] { invocation.run = [options] { return create(*options); }; });
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
        "file is that VM's memory. Refused too while a snapshot of own pages builds on it.\n"
        "\n"
        "Example:\n"
        "  masu snapshot rm web-warm");
    command->callback(
        [names, &invocation] { invocation.run = [names] { return remove(*names); }; });
}

}  // namespace

Result<std::vector<std::string>> users_of(const std::string& name) {
    const auto store = TRY(open_store());
    std::vector<std::string> users;
    for (const auto& folder : TRY(store.all()))
        if (const auto status = look_at(folder);
            status.alive() && status.record && status.record->snapshot == name)
            users.push_back(folder.name());
    return users;
}

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
    add_collapse(*group, invocation);
    add_compress(*group, invocation);
    add_rm(*group, invocation);
    add_page_server(program, invocation);
}

}  // namespace masu::cli

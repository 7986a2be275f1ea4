// masu snapshot restore and clone: VMs that begin where a snapshot stopped.
#include <CLI/App.hpp>
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <mutex>
#include <thread>
#include <tuple>

#include <boost/json.hpp>

#include "tools/masu/attach.hpp"
#include "tools/masu/group_rules.hpp"
#include "tools/masu/host_file.hpp"
#include "tools/masu/monitor_client.hpp"
#include "tools/masu/monitor_process.hpp"
#include "tools/masu/restored_memory.hpp"
#include "tools/masu/restored_network.hpp"
#include "tools/masu/session.hpp"
#include "tools/masu/snapshot_commands.hpp"
#include "tools/masu/snapshot_store.hpp"
#include "tools/masu/unix_socket.hpp"
#include "vmm/snapshot/copy_file.hpp"

namespace masu::cli {
namespace {

constexpr int load_timeout_ms = 600'000;
constexpr unsigned max_clones = 10'000;
constexpr unsigned clones_at_once = 8;

struct RestoreOptions {
    std::string snapshot;
    std::string name;
    std::string clock = "realtime";
    std::string log_level = "info";
    unsigned count = 1;
    RestoredNetworkOptions network;
    std::string vsock_path;
    bool detach = false;
    bool remove = false;
    JailOptions jail;
    bool paused = false;
    bool track_dirty_pages = false;
    bool no_working_set = false;
    unsigned record_working_set = 0;  // seconds
};

// The drives of one VM: each that can change gets an overlay of its own in the VM's folder. What
// the record says of the disks follows.
Result<boost::json::array> own_drives(const Snapshot& snapshot, const VmFolder& folder,
                                      VmRecord& record) {
    boost::json::array changes;
    for (std::size_t i = 0; i < snapshot.drives.size(); ++i) {
        const auto& drive = snapshot.drives[i];
        if (drive.kind == "reference")
            continue;
        const auto overlay = folder.file(drive.drive_id + ".overlay");
        const auto saved = snapshot.path + "/" + drive.file;
        boost::json::object change{{"drive_id", drive.drive_id}, {"overlay_path", overlay}};
        // An overlay goes on as a copy; a disk that was copied whole becomes the base of a new one.
        if (drive.kind == "overlay")
            std::ignore = TRY(snapshot::copy_file(saved, overlay));
        else
            change["path_on_host"] = saved;
        if (i < record.disks.size()) {
            record.disks[i].overlay = overlay;
            if (drive.kind != "overlay")
                record.disks[i].path = saved;
        }
        changes.push_back(std::move(change));
    }
    return changes;
}

struct Restored {
    VmRecord record;
    VmFolder folder;
    MonitorProcess monitor;
    Fd console;  // joined, unless detached
};

// Who a clone is; a VM that is restored stays who it was.
boost::json::object identity_of(const VmRecord& record) {
    return {{"instance_id", instance_id_of(record)}, {"hostname", record.name}};
}

// Rules come after the load, which closes every interface that had some, and before the guest runs.
Result<> begin_running(const Store& store, const VmRecord& record, const VmFolder& folder,
                       const RestoreOptions& options) {
    TRY(join_groups(store, record));
    if (options.network.flow_logs.on)
        TRY(start_flow_logs(record, folder, options.network.flow_logs));
    if (options.paused)
        return {};
    return MonitorClient(record.api_socket(), record.name)
        .patch("/vm", boost::json::object{{"state", "Resumed"}});
}

Result<> load(const Snapshot& snapshot, const VmRecord& record, const RestoreOptions& options,
              const RestoredAs& as, boost::json::array drives,
              const std::vector<NetworkPort>& backends, const boost::json::object& memory_backend) {
    const bool networked = !record.nets.empty();
    boost::json::object body{{"directory", snapshot.path},
                             {"resume_vm", !options.paused && !networked},
                             {"clock_realtime", options.clock == "realtime"},
                             {"track_dirty_pages", options.track_dirty_pages},
                             {"working_set", !options.no_working_set},
                             {"drives", std::move(drives)}};
    if (!memory_backend.empty())
        body["mem_backend"] = memory_backend;
    if (options.record_working_set > 0)
        body["record_working_set_ms"] = options.record_working_set * 1000;
    if (networked)
        body["network_overrides"] =
            network_overrides(record, backends, !options.network.nets.empty(),
                              as.clone ? record.name : snapshot.vm.name);
    if (record.vsock)
        body["vsock_override"] = boost::json::object{{"uds_path", record.vsock->path}};
    if (as.clone)
        body["identity"] = identity_of(record);
    return MonitorClient(record.api_socket(), record.name)
        .put("/snapshot/load", std::move(body), load_timeout_ms);
}

// A socket of its own: the saved VM's may be in use.
Result<> choose_vsock(const RestoreOptions& options, unsigned number, VmRecord& record) {
    if (!record.vsock && !options.vsock_path.empty())
        return fail("--vsock-path: the saved VM has no vsock");
    if (record.vsock)
        record.vsock->path = options.vsock_path.empty()
                                 ? std::string()
                                 : absolute_path(with_number(options.vsock_path, number));
    return {};
}

Result<Restored> start(Store& store, const Snapshot& snapshot, const RestoredMemory& memory,
                       const RestoreOptions& options, const GroupBook& book,
                       const std::string& name, const RestoredAs& as) {
    auto record = snapshot.vm;
    record.name = name;
    TRY(choose_restored_network(options.network, book, as, record));
    TRY(choose_vsock(options, as.number, record));
    record.pid = 0;
    record.snapshot = snapshot.name;
    record.remove = options.remove;
    set_jail(options.jail, record);
    if (record.jail)
        (options.record_working_set > 0 ? record.jail_write : record.jail_read)
            .push_back(snapshot.path);
    record.boot_timer = false;
    record.monitor = TRY(find_monitor());
    auto [folder, lock] = TRY(store.create(record));
    const auto begin = [&]() -> Result<Restored> {
        auto drives = TRY(own_drives(snapshot, folder, record));
        const auto backends = TRY(start_restored_network(store, record, folder));
        const auto served =
            TRY(prepare_memory(memory, snapshot, record, folder,
                               !options.no_working_set && options.record_working_set == 0));
        std::vector<int> inherited;
        for (const auto& backend : backends)
            for (const auto& fd : backend.descriptors)
                inherited.push_back(fd.get());
        if (served.inherited)
            inherited.push_back(served.inherited.get());
        auto monitor = TRY(start_monitor(record, folder, lock, options.log_level, inherited));
        const auto go_on = [&]() -> Result<Fd> {
            record.pid = monitor.pid;
            TRY(folder.write(record));
            Fd console;
            if (!options.detach)
                console = TRY(connect_unix(record.console_socket()));
            TRY(load(snapshot, record, options, as, std::move(drives), backends, served.field));
            if (!record.nets.empty())
                TRY(begin_running(store, record, folder, options));
            return console;
        };
        auto console = go_on();
        if (!console) {
            return give_up_start(record, monitor, std::move(console.error()));
        }
        return Restored{std::move(record), folder, std::move(monitor), *std::move(console)};
    };
    auto restored = begin();
    lock.reset();
    if (!restored) {
        TRY(store.remove(name));
        return fail("{}: {}", name, restored.error().message);
    }
    if (options.remove)
        TRY(leave_reaper(store, restored->folder, restored->record.id));
    return restored;
}

Result<int> restore(const RestoreOptions& options) {
    tell_of_jail(options.jail);
    const auto snapshots = TRY(open_snapshot_store());
    auto held = TRY(snapshots.hold(options.snapshot));
    const auto snapshot = TRY(snapshots.find(options.snapshot));
    const auto memory = TRY(choose_memory(snapshot));
    auto store = TRY(open_store());
    const auto book = TRY(GroupStore(store.places().state).read());
    block_attach_signals();
    const auto name = options.name.empty() ? snapshot.vm.name : options.name;
    auto restored = TRY(start(store, snapshot, memory, options, book, name, {}));
    held.reset();  // from here on the VM's own record speaks for it
    if (options.detach) {
        std::puts(name.c_str());
        return 0;
    }
    return hold_console(restored.folder, restored.record, restored.monitor, restored.console);
}

// Said once, and not by each clone. One TAP is one VM's.
Result<> check_networks(const Snapshot& snapshot, const RestoreOptions& options,
                        const GroupBook& book) {
    for (const auto number : {1U, options.count}) {
        auto trial = snapshot.vm;
        TRY(choose_restored_network(options.network, book, {.clone = true, .number = number},
                                    trial));
    }
    if (options.count < 2)
        return {};
    for (std::size_t i = 0; i < snapshot.vm.nets.size(); ++i) {
        const bool given = i < options.network.nets.size();
        const bool tap = given ? options.network.nets[i].starts_with("tap=")
                               : snapshot.vm.nets[i].kind == NetOption::Kind::Tap;
        if (tap && (!given || !options.network.nets[i].contains("{n}")))
            return fail(
                "each clone needs a TAP of its own: name them with --net tap=NAME{{n}}, where "
                "{{n}} "
                "is the clone's number, or let them have --net user");
    }
    return {};
}

Result<int> clone(RestoreOptions options) {
    tell_of_jail(options.jail);
    const auto snapshots = TRY(open_snapshot_store());
    const auto held = TRY(snapshots.hold(options.snapshot));
    const auto snapshot = TRY(snapshots.find(options.snapshot));
    auto store = TRY(open_store());
    const auto book = TRY(GroupStore(store.places().state).read());
    TRY(check_networks(snapshot, options, book));
    const auto memory = TRY(choose_memory(snapshot));
    if (options.count > 1 && !options.vsock_path.empty() && !options.vsock_path.contains("{n}"))
        return fail(
            "each clone needs a vsock path of its own: --vsock-path {}{{n}}, where {{n}} is the "
            "clone's number",
            options.vsock_path);
    options.detach = true;
    const auto prefix = options.name.empty() ? snapshot.name : options.name;
    std::atomic<unsigned> next{1};
    std::atomic<unsigned> failures{0};
    std::mutex output;
    const auto work = [&] {
        for (unsigned number = next++; number <= options.count; number = next++) {
            const auto name = fmt::format("{}-{}", prefix, number);
            const auto started = start(store, snapshot, memory, options, book, name,
                                       {.clone = true, .number = number});
            const std::lock_guard lock(output);
            if (started) {
                std::puts(name.c_str());
            } else {
                note(started.error().message);
                ++failures;
            }
        }
    };
    {
        std::vector<std::jthread> workers;
        for (unsigned i = 0; i < std::min(options.count, clones_at_once); ++i)
            workers.emplace_back(work);
    }
    if (failures > 0)
        return fail("{} of {} clones did not start", failures.load(), options.count);
    return 0;
}

void add_network_options(CLI::App& command, RestoredNetworkOptions& options) {
    command
        .add_option(
            "--net", options.nets,
            "What an interface of the saved VM is attached to now: user, tap=NAME or network=NAME; "
            "with address=A/LENGTH, gateway=A and dns=A the guest is told to take other "
            "addresses. Once for each interface (default: as it was saved)")
        ->type_name("NET[,SETTING]...")
        ->allow_extra_args(false)
        ->take_all();
    command
        .add_option("-p,--publish", options.ports,
                    "Pass what comes to this machine's port HOST on to the guest's port GUEST; "
                    "none: no port")
        ->type_name("[ADDRESS:]HOST:GUEST[/udp]")
        ->allow_extra_args(false)
        ->take_all();
    command
        .add_option("--security-group", options.security_groups,
                    "A security group that the VM is in, by name or id (default: those of the "
                    "saved VM)")
        ->type_name(group_value)
        ->allow_extra_args(false)
        ->take_all();
    add_flow_log_options(command, options.flow_logs);
}

std::shared_ptr<RestoreOptions> add_common(CLI::App& command) {
    auto options = std::make_shared<RestoreOptions>();
    command.add_option("snapshot", options->snapshot, "Name of the snapshot")
        ->type_name(snapshot_value)
        ->required();
    add_choice(command, "--clock", options->clock, {"realtime", "continue"},
               "realtime: the guest's clocks skip the time that has passed, and its wall clock is "
               "right at once (default); continue: they go on where they stopped");
    command.add_flag("--paused", options->paused, "Do not let it run yet");
    command.add_flag("--track-dirty-pages", options->track_dirty_pages,
                     "Log the pages it writes, so that each --diff holds those since the last one");
    command.add_flag("--no-working-set", options->no_working_set,
                     "Do not bring in the recorded working set ahead of the guest");
    command.add_flag("--rm", options->remove, "Delete the VM's state when it has ended");
    add_jail_options(command, options->jail);
    add_network_options(command, options->network);
    command
        .add_option("--vsock-path", options->vsock_path,
                    "Where the Unix socket of its vsock is (default: one that `masu inspect` "
                    "shows). {n}: the clone's number")
        ->type_name("PATH");
    add_choice(command, "--log-level", options->log_level,
               {"trace", "debug", "info", "warn", "error", "off"},
               "How much the monitor logs (default info)");
    return options;
}

}  // namespace

void add_restore(CLI::App& group, Invocation& invocation) {
    auto* command = group.add_subcommand("restore", "Go on with a saved VM, console here");
    const auto options = add_common(*command);
    command->add_option("--name", options->name, "Name of the VM (default: that of the saved one)")
        ->type_name("NAME");
    command->add_flag("-d,--detach", options->detach,
                      "Return once the VM runs, and print its name");
    command->add_flag("--record-working-set{2}", options->record_working_set,
                      "Keep which pages it touches until it is ready, at most so many seconds "
                      "(default 2), and have them ready for later restores");
    command->footer(
        "The VM gets overlays of its own for its disks; the snapshot stays as it is. Its kernel\n"
        "is told that it is a copy (VM generation ID) and reseeds its random numbers.\n"
        "\n"
        "Examples:\n"
        "  masu snapshot restore web-warm\n"
        "  masu snapshot restore web-warm --name web-again -d -p 8081:80");
    command->callback(
        [options, &invocation] { invocation.run = [options] { return restore(*options); }; });
}

void add_clone(CLI::App& group, Invocation& invocation) {
    auto* command = group.add_subcommand("clone", "Start many VMs from one snapshot");
    const auto options = add_common(*command);
    command->add_option("--count", options->count, "How many (default 1)")
        ->type_name("N")
        ->check(CLI::Range(1U, max_clones));
    command
        ->add_option("--name", options->name,
                     "Their names, less -1, -2, ... (default: the snapshot's)")
        ->type_name("PREFIX");
    command->footer(
        "Clones run detached and share the snapshot's memory until they write to it. Each name is\n"
        "printed when its VM runs. -p: HOST is the first clone's port, the next one has HOST+1, "
        "and\n"
        "so on. --net: {n} stands for the clone's number, from 1.\n"
        "\n"
        "Examples:\n"
        "  masu snapshot clone web-warm --count 100 --name worker -p 8000:80 --rm\n"
        "  masu snapshot clone web-warm --count 3 --net 'tap=web{n},address=10.0.{n}.2/24'");
    command->callback(
        [options, &invocation] { invocation.run = [options] { return clone(*options); }; });
}

}  // namespace masu::cli

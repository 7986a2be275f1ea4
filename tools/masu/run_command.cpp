// masu run: makes a VM, starts it, and holds its console.
#include <unistd.h>
#include <CLI/App.hpp>

#include <cstdio>
#include <ctime>
#include <memory>
#include <sstream>

#include <boost/json.hpp>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "tools/masu/attach.hpp"
#include "tools/masu/boot_line.hpp"
#include "tools/masu/commands.hpp"
#include "tools/masu/flow_log_options.hpp"
#include "tools/masu/group_rules.hpp"
#include "tools/masu/host_file.hpp"
#include "tools/masu/image_disk.hpp"
#include "tools/masu/instance_types.hpp"
#include "tools/masu/monitor_client.hpp"
#include "tools/masu/monitor_process.hpp"
#include "tools/masu/session.hpp"
#include "tools/masu/unix_socket.hpp"
#include "tools/masu/vm_network.hpp"
#include "vmm/boot_timer.hpp"
#include "vmm/config.hpp"

namespace masu::cli {
namespace {

// The monitor itself needs milliseconds, but may have to load a large kernel and initrd from a slow
// disk, on a host that has much else to do. A monitor that dies is noticed at once.
constexpr int start_timeout_ms = 600'000;
constexpr std::size_t log_limit = 64 * MiB;

constexpr const char* footer =
    "The guest's console is this terminal, in raw mode. Ctrl-A X stops the VM, Ctrl-A D leaves it\n"
    "running, Ctrl-A H shows the keys. The exit status is 0 when the guest switched itself off,\n"
    "and 1, with one line that says why, when it ended in any other way.\n"
    "\n"
    "IMAGE is a whole disk, as for a real machine: Masu's firmware, in the guest, boots what it\n"
    "finds on it. With --kernel Masu never looks into a disk: root=/dev/vda is assumed; a root "
    "file\n"
    "system in a partition needs --append root=/dev/vda1. A comma in a file name is written "
    "twice.\n"
    "\n"
    "Examples:\n"
    "  masu run debian --memory 1G --name web -d\n"
    "  masu run ./debian.raw --disk-size 20G --disk data.raw --boot-menu --rm\n"
    "  masu run --kernel vmlinuz --initrd initrd.img --append 'root=/dev/vda1 ro' --disk "
    "debian.raw\n"
    "  masu run --kernel vmlinux --type t3.micro --disk rootfs.ext4,overlay=web.overlay --name web "
    "-d\n"
    "  masu run debian --net user --net network=lab --name db -d\n"
    "  masu run --kernel vmlinux --cpus 4 --memory 6G --disk root.ext4,ro --disk "
    "data.raw,iops=3000,bw=125M\n"
    "  masu run debian -p 2222:22 -p 0.0.0.0:8080:80 --security-group web --udp-timeout 60\n"
    "  masu run debian --vsock auto,uds=/run/web.vsock\n"
    "  masu run debian --log-format '${srcaddr} ${dstaddr} ${dstport} ${action} ${flow-direction}'";

struct RunOptions {
    std::string image;  // a name or a path; empty for none
    std::string disk_size;
    std::string kernel;
    std::string initrd;
    std::string append;
    unsigned cpus = 1;
    std::string memory = "512M";
    std::string type;
    std::vector<std::string> disks;
    NetworkOptions network;
    std::vector<std::string> security_groups;
    FlowLogOptions flow_logs;
    FirewallOptions firewall;
    std::string name;
    std::string vsock;
    std::string transport = "pci";
    std::string cpu_template = "host";
    std::string log_level = "info";
    unsigned stop_timeout = 30;
    bool detach = false;
    bool remove = false;
    bool no_reboot = false;
    JailOptions jail;
    bool boot_timer = false;
    bool track_dirty_pages = false;
    bool boot_menu = false;
    unsigned boot_device = 0;
};

// What is booted: a kernel of the host's, or the disks, by the firmware.
Result<> set_boot(const RunOptions& options, VmRecord& record) {
    if (options.kernel.empty()) {
        if (!options.initrd.empty())
            return fail("--initrd belongs to --kernel; an IMAGE brings its own");
        if (options.boot_device > record.disks.size())
            return fail("--boot-device {}: there are {} disks (IMAGE is 1)", options.boot_device,
                        record.disks.size());
        record.boot_args = options.append;
        return {};
    }
    record.kernel = absolute_path(options.kernel);
    TRY(check_host_file("kernel", record.kernel, FileKind::File));
    if (!options.initrd.empty()) {
        record.initrd = absolute_path(options.initrd);
        TRY(check_host_file("initrd", *record.initrd, FileKind::File));
    }
    record.boot_args = make_boot_args(options.append, !record.disks.empty(),
                                      !record.disks.empty() && record.disks.front().read_only);
    return {};
}

Result<> set_size(const RunOptions& options, VmRecord& record) {
    if (!options.type.empty()) {
        const auto type = find_instance_type(options.type);
        if (!type)
            return fail("--type {}: not a type known here; `masu run --help-types` lists them",
                        options.type);
        record.type = type->name;
        record.cpus = type->vcpus;
        record.memory_mib = type->memory_mib;
        return {};
    }
    record.cpus = options.cpus;
    const auto memory = parse_size(options.memory);
    if (!memory)
        return fail("--memory {}: {}", options.memory, memory.error().message);
    if (*memory == 0 || *memory % MiB != 0)
        return fail("--memory {}: must be a multiple of 1M (without a suffix it means bytes)",
                    options.memory);
    record.memory_mib = *memory / MiB;
    return {};
}

// The first disk, when the command line names an image. The descriptor keeps the image there until
// the VM's record is written.
Result<Fd> add_image(const RunOptions& options, const Places& places, VmRecord& record) {
    std::optional<std::uint64_t> size;
    if (!options.disk_size.empty())
        size = TRY(parse_disk_size("--disk-size", options.disk_size));
    const auto overlay = Store(places).folder_of(record.name) + "/disk.overlay";
    auto chosen = TRY(choose_image(ImageStore(places), options.image, overlay, size));
    record.image = std::move(chosen.image);
    record.disks.push_back(std::move(chosen.disk));
    return std::move(chosen.hold);
}

// `image_hold`: keep it until the record is written.
Result<VmRecord> make_record(const RunOptions& options, const Places& places, Fd& image_hold) {
    VmRecord record;
    record.name = options.name.empty()
                      ? fmt::format("vm-{:x}-{:x}", std::time(nullptr) & 0xffffff, ::getpid())
                      : options.name;
    TRY(check_vm_name(record.name));
    if (!options.image.empty())
        image_hold = TRY(add_image(options, places, record));
    for (const auto& text : options.disks) {
        auto disk = TRY(parse_disk_option(text));
        TRY(resolve_disk(disk));
        record.disks.push_back(std::move(disk));
    }
    TRY(choose_networks(options.network, record));
    apply(options.firewall, record.firewall);
    TRY(check(options.flow_logs));
    TRY(set_size(options, record));
    TRY(set_boot(options, record));
    const GroupStore groups(TRY(open_store()).places().state);
    const auto book = TRY(groups.read());
    record.security_groups = TRY(resolve_groups(book, options.security_groups));
    if (!options.vsock.empty())
        record.vsock = TRY(parse_vsock_option(options.vsock));
    record.transport = options.transport;
    record.reboot = !options.no_reboot;
    set_jail(options.jail, record);
    record.remove = options.remove;
    record.boot_timer = options.boot_timer;
    record.stop_timeout = options.stop_timeout;
    record.monitor = TRY(find_monitor());
    return record;
}

boost::json::object boot_source(const VmRecord& record, const RunOptions& options) {
    boost::json::object boot;
    if (record.kernel.empty()) {
        boot = {{"firmware", true}, {"boot_menu", options.boot_menu}};
        if (options.boot_device != 0)
            boot["boot_device"] = options.boot_device;
        if (!record.boot_args.empty())
            boot["boot_args"] = record.boot_args;
        return boot;
    }
    boot = {{"kernel_image_path", record.kernel}, {"boot_args", record.boot_args}};
    if (record.initrd)
        boot["initrd_path"] = *record.initrd;
    return boot;
}

Result<> configure(const MonitorClient& client, const VmRecord& record, const RunOptions& options,
                   const std::vector<NetworkPort>& backends, const GuestMetadata& metadata) {
    TRY(client.put("/machine-config",
                   boost::json::object{{"vcpu_count", record.cpus},
                                       {"mem_size_mib", record.memory_mib},
                                       {"cpu_template", options.cpu_template},
                                       {"track_dirty_pages", options.track_dirty_pages}}));
    TRY(client.put("/boot-source", boot_source(record, options)));
    for (std::size_t i = 0; i < record.disks.size(); ++i) {
        const auto id = fmt::format("disk{}", i);
        TRY(client.put("/drives/" + id, drive_request(record.disks[i], id)));
    }
    TRY(configure_networks(client, record, backends, metadata));
    if (record.vsock)
        TRY(client.put("/vsock", vsock_request(*record.vsock)));
    TRY(client.put("/entropy", boost::json::object{}));
    return {};
}

struct Started {
    MonitorProcess monitor;
    Fd console;  // joined before the guest's first byte
};

Result<Started> start(VmRecord& record, const VmFolder& folder, Fd& lock,
                      const RunOptions& options) {
    const auto metadata = TRY(read_guest_metadata(options.network));
    const auto backends = TRY(start_networks(options.network, record, folder));
    std::vector<int> inherited;
    for (const auto& backend : backends)
        for (const auto& fd : backend.descriptors)
            inherited.push_back(fd.get());
    auto monitor = TRY(start_monitor(record, folder, lock, options.log_level, inherited));
    const auto boot = [&]() -> Result<Fd> {
        record.pid = monitor.pid;
        TRY(folder.write(record));
        const MonitorClient client(record.api_socket(), record.name, start_timeout_ms);
        TRY(configure(client, record, options, backends, metadata));
        const auto store = TRY(open_store());
        TRY(join_groups(store, record));
        if (options.flow_logs.on)
            TRY(start_flow_logs(record, folder, options.flow_logs));
        Fd console;
        if (!options.detach)
            console = TRY(connect_unix(record.console_socket()));
        TRY(client.action("InstanceStart"));
        return console;
    };
    auto console = boot();
    if (!console) {
        // A VM that never started leaves nothing behind.
        return give_up_start(record, monitor, std::move(console.error()));
    }
    return Started{std::move(monitor), *std::move(console)};
}

// The monitor prints the milestones into its log; whoever asked for them here sees them here.
void show_boot_timer(const VmFolder& folder) {
    const auto log = read_file(folder.monitor_log(), log_limit);
    if (!log)
        return;
    const auto table = log->rfind("milestone ");
    if (table == std::string::npos)
        return;
    std::istringstream lines(log->substr(table));
    std::string line;
    for (std::size_t i = 0; i <= milestone_count && std::getline(lines, line); ++i)
        std::fprintf(stderr, "%s\n", line.c_str());
}

Result<int> finish_attached(Store& store, const VmFolder& folder, const VmRecord& record,
                            Started started, const Fd& watched) {
    const auto status = hold_console(folder, record, started.monitor, started.console);
    if (record.boot_timer)
        show_boot_timer(folder);
    if (record.remove && watched && started.monitor.wait(0)) {
        [[maybe_unused]] const auto dead = folder.wait_until_dead();
        TRY(store.remove(record.name, record.id));
    }
    return status;
}

Result<int> run(const RunOptions& options) {
    tell_of_jail(options.jail);
    const auto places = TRY(find_own_places());
    Fd image_hold;
    auto record = TRY(make_record(options, places, image_hold));
    Store store(places);
    block_attach_signals();
    auto [folder, lock] = TRY(store.create(record));
    image_hold.reset();
    const auto watched = options.detach ? Fd() : TRY(folder.watch());
    auto started = start(record, folder, lock, options);
    lock.reset();  // from here on only the monitor holds it
    if (!started) {
        TRY(store.remove(record.name, record.id));
        return fail("{}: {}", record.name, started.error().message);
    }
    if (options.remove)
        TRY(leave_reaper(store, folder, record.id));
    if (options.detach) {
        std::puts(record.name.c_str());
        return 0;
    }
    return finish_attached(store, folder, record, *std::move(started), watched);
}

void add_machine_options(CLI::App& command, RunOptions& options) {
    auto* type =
        command
            .add_option("--type", options.type, "Size of an EC2 instance type, such as t3.micro")
            ->type_name("TYPE");
    command.add_option("--cpus", options.cpus, "Virtual CPUs (default 1)")
        ->type_name("N")
        ->check(CLI::Range(1U, max_vcpus))
        ->excludes(type);
    command
        .add_option("--memory", options.memory, "Memory, with suffix K, M, G or T (default 512M)")
        ->type_name("SIZE")
        ->excludes(type);
    add_choice(command, "--cpu-template", options.cpu_template,
               {"host", "x86-64-v2", "x86-64-v3", "x86-64-v4"},
               "Show the guest what every CPU of that level has, and no more, so that snapshots "
               "of it can be restored on other hosts (default host: all that this one has)");
    auto* image = command.get_option("image");
    command
        .add_option("--disk-size", options.disk_size,
                    "Size of the disk that this VM gets of IMAGE, at least the image's")
        ->type_name("SIZE")
        ->needs(image);
    command
        .add_option("--disk", options.disks,
                    "A raw image or block device, and how to use it: ro, overlay=FILE (writes go "
                    "there; made when missing; of size=SIZE), serial=S, iops=N, bw=SIZE (bytes a "
                    "second), direct. Repeat for more disks")
        ->type_name("FILE[,SETTING]...")
        ->allow_extra_args(false)
        ->take_all();
    command
        .add_option("--vsock", options.vsock,
                    "A socket device, by which programs in the guest and on this machine reach "
                    "each other without a network: the guest's CID, or auto (3), and uds=PATH, "
                    "the Unix socket it has here (default: one that `masu inspect` shows)")
        ->type_name("CID|auto[,uds=PATH]");
    add_choice(command, "--transport", options.transport, {"pci", "mmio"},
               "How virtio devices are attached (default pci)");
}

void add_network_options(CLI::App& command, NetworkOptions& options) {
    command
        .add_option(
            "--net", options.nets,
            "The network: user (through passt; the default where it is installed), network=NAME "
            "(with the other VMs on it; masu net makes one), tap=NAME (an interface of this "
            "machine) or none. Settings: mac=M, mtu=N, bw=SIZE (bytes a second), pps=N (packets a "
            "second), bw-burst=SIZE and pps-burst=N (once, beyond that); of a TAP also "
            "address=A/LENGTH, gateway=A, address6=A/LENGTH, gateway6=A, dns=A; of a network also "
            "address=A. Repeat for more interfaces")
        ->type_name("NET[,SETTING]...")
        ->allow_extra_args(false)
        ->take_all();
    command
        .add_option("-p,--publish", options.ports,
                    "Pass what comes to this machine's port HOST on to the guest's port GUEST "
                    "(with --net user). From this machine alone unless an ADDRESS says "
                    "otherwise: 0.0.0.0:8080:80 is for everybody")
        ->type_name("[ADDRESS:]HOST:GUEST[/udp]")
        ->allow_extra_args(false)
        ->take_all();
    add_choice(command, "--imds", options.imds, {"v2", "v1", "off"},
               "Metadata service at 169.254.169.254: with session tokens only (v2, the default), "
               "also without (v1), or none");
    command
        .add_option("--account-id", options.account_id,
                    "The account that the VM is said to be of, in its identity document and its "
                    "flow logs: 12 digits")
        ->type_name("ID");
    command
        .add_option("--user-data", options.user_data,
                    "What cloud-init in the guest runs at the first boot (16 KiB at most)")
        ->type_name(file_value);
    command
        .add_option("--ssh-key", options.ssh_keys,
                    "A file of public keys that may log in (through cloud-init)")
        ->type_name(file_value)
        ->allow_extra_args(false)
        ->take_all();
}

void add_group_option(CLI::App& command, RunOptions& options) {
    command
        .add_option("--security-group", options.security_groups,
                    "A security group that the VM is in, by name or id (default: default). Repeat "
                    "for more, 5 at most; masu sg makes and changes them")
        ->type_name(group_value)
        ->allow_extra_args(false)
        ->take_all();
    add_flow_log_options(command, options.flow_logs);
    add_firewall_options(command, options.firewall);
}

void add_life_options(CLI::App& command, RunOptions& options) {
    command.add_option("--name", options.name, "Name of the VM (default: one is made up)")
        ->type_name("NAME");
    command.add_flag("-d,--detach", options.detach, "Return once the VM runs, and print its name");
    command.add_flag("--rm", options.remove, "Delete the VM's state when it has ended");
    command.add_flag("--no-reboot", options.no_reboot,
                     "End when the guest reboots, instead of starting it again");
    add_jail_options(command, options.jail);
    command
        .add_option("--stop-timeout", options.stop_timeout,
                    "What `masu stop` waits between power button and kill (default 30)")
        ->type_name("SECONDS");
    command.add_flag(
        "--track-dirty-pages", options.track_dirty_pages,
        "Log the pages it writes, for `masu snapshot create --diff`; costs some speed");
    command.add_flag("--boot-timer", options.boot_timer,
                     "Print how long the steps of the start took, at the end");
    add_choice(command, "--log-level", options.log_level,
               {"trace", "debug", "info", "warn", "error", "off"},
               "How much the monitor logs (default info)");
}

std::string list_types() {
    std::string text;
    for (const auto& type : instance_types())
        text += fmt::format("{:<14} {:>2} vCPU  {:>9}\n", type.name, type.vcpus,
                            format_size(type.memory_mib * MiB));
    return text;
}

}  // namespace

void add_run_command(CLI::App& program, Invocation& invocation) {
    auto* command = program.add_subcommand("run", "Boot a VM, with its console on this terminal");
    auto options = std::make_shared<RunOptions>();
    command->footer(footer);
    command
        ->add_option(
            "image", options->image,
            "What the first disk begins as: an image's name, or the path of a raw disk. It "
            "is never changed; the VM's writes go to an overlay that is deleted with the "
            "VM. The firmware boots it unless there is a --kernel")
        ->type_name(image_value);
    auto* kernel =
        command
            ->add_option("--kernel", options->kernel,
                         "Linux kernel to start directly: bzImage, or ELF with a PVH note")
            ->type_name(file_value);
    command->add_option("--initrd", options->initrd, "Initial RAM disk")->type_name(file_value);
    command
        ->add_option("--append", options->append,
                     "Words for the kernel command line; they come after Masu's own. Without "
                     "--kernel: what the image's EFI boot loader gets as its command line")
        ->type_name("WORDS");
    command
        ->add_flag("--boot-menu", options->boot_menu,
                   "The firmware waits 3 seconds for a key that opens its boot menu")
        ->excludes(kernel);
    command
        ->add_option("--boot-device", options->boot_device,
                     "The only disk the firmware boots from, by number: 1 is the first")
        ->type_name("N")
        ->check(CLI::Range(1U, 24U))
        ->excludes(kernel);
    add_machine_options(*command, *options);
    add_network_options(*command, options->network);
    add_group_option(*command, *options);
    add_life_options(*command, *options);
    command
        ->add_flag_callback(
            "--help-types", [] { throw CLI::CallForVersion(list_types(), 0); },
            "List the instance types --type knows")
        ->trigger_on_parse();
    command->callback([options, &invocation] {
        if (options->image.empty() && options->kernel.empty() && options->disks.empty())
            throw CLI::RequiredError("IMAGE or --kernel");
        invocation.run = [options] { return run(*options); };
    });
}

}  // namespace masu::cli

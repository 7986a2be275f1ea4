// Reading the command line with getopt_long: it links statically and costs nothing at start.
#include "tools/masu-vmm/options.hpp"

#include <getopt.h>

#include <array>
#include <charconv>

#include "vmm/config_check.hpp"

namespace masu {
namespace {

enum Name : int {
    ApiFd = 256,
    ApiSocket,
    Boot,
    ConfigFile,
    ConsoleOption,
    ConsoleLogOption,
    ExitFile,
    ForkServerFd,
    Help,
    Id,
    JailRead,
    JailSocket,
    JailWrite,
    Level,
    LogPath,
    MaxPayload,
    MetricsPath,
    NoApi,
    NoJail,
    NoReboot,
    PoolSocket,
    ReadyFd,
    Seccomp,
    StartTime,
    TransportOption,
    VersionOption,
};

constexpr std::array<option, 27> known{{
    {"api-fd", required_argument, nullptr, ApiFd},
    {"api-sock", required_argument, nullptr, ApiSocket},
    {"boot-timer", no_argument, nullptr, Boot},
    {"config-file", required_argument, nullptr, ConfigFile},
    {"console", required_argument, nullptr, ConsoleOption},
    {"console-log", required_argument, nullptr, ConsoleLogOption},
    {"exit-file", required_argument, nullptr, ExitFile},
    {"fork-server-fd", required_argument, nullptr, ForkServerFd},
    {"help", no_argument, nullptr, Help},
    {"http-api-max-payload-size", required_argument, nullptr, MaxPayload},
    {"id", required_argument, nullptr, Id},
    {"jail-read", required_argument, nullptr, JailRead},
    {"jail-socket", required_argument, nullptr, JailSocket},
    {"jail-write", required_argument, nullptr, JailWrite},
    {"level", required_argument, nullptr, Level},
    {"log-path", required_argument, nullptr, LogPath},
    {"metrics-path", required_argument, nullptr, MetricsPath},
    {"no-api", no_argument, nullptr, NoApi},
    {"no-jail", no_argument, nullptr, NoJail},
    {"no-reboot", no_argument, nullptr, NoReboot},
    {"pool-sock", required_argument, nullptr, PoolSocket},
    {"ready-fd", required_argument, nullptr, ReadyFd},
    {"seccomp", required_argument, nullptr, Seccomp},
    {"start-time-us", required_argument, nullptr, StartTime},
    {"transport", required_argument, nullptr, TransportOption},
    {"version", no_argument, nullptr, VersionOption},
    {nullptr, 0, nullptr, 0},
}};

Result<std::uint64_t> parse_number(std::string_view option, std::string_view text,
                                   std::uint64_t smallest, std::uint64_t largest) {
    std::uint64_t number = 0;
    const auto* end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc() || rest != end || number < smallest || number > largest)
        return fail("--{} takes a number from {} to {}, not '{}'", option, smallest, largest, text);
    return number;
}

Result<int> parse_descriptor(std::string_view option, std::string_view text) {
    return static_cast<int>(TRY(parse_number(option, text, 3, 1 << 20)));
}

Result<> set_option(Options& options, int name, const char* value) {
    switch (name) {
        case ApiFd:
            options.api_fd = TRY(parse_descriptor("api-fd", value));
            return {};
        case ApiSocket:
            options.api_socket = value;
            return {};
        case Boot:
            options.boot_timer = true;
            return {};
        case ConfigFile:
            options.config_file = value;
            return {};
        case ConsoleOption:
            options.console = value;
            return {};
        case ConsoleLogOption:
            options.console_log = value;
            return {};
        case ExitFile:
            options.exit_file = value;
            return {};
        case ForkServerFd:
            options.task = Options::Task::ServeForks;
            options.fork_server_fd = TRY(parse_descriptor("fork-server-fd", value));
            return {};
        case Help:
            options.task = Options::Task::Help;
            return {};
        case Id:
            options.id = value;
            return check_instance_id(options.id);
        case JailRead:
            options.jail.files.read.emplace_back(value);
            return {};
        case JailSocket:
            options.jail.files.sockets.emplace_back(value);
            return {};
        case JailWrite:
            options.jail.files.write.emplace_back(value);
            return {};
        case Level:
            options.level = TRY(parse_log_level(value));
            return {};
        case LogPath:
            options.log_path = value;
            return {};
        case MaxPayload:
            options.max_payload = TRY(parse_number("http-api-max-payload-size", value, 1024,
                                                   64 * std::uint64_t{1} << 20));
            return {};
        case MetricsPath:
            options.metrics_path = value;
            return {};
        case NoApi:
            options.api = false;
            return {};
        case NoJail:
            options.no_jail = true;
            return {};
        case NoReboot:
            options.reboot = false;
            return {};
        case PoolSocket:
            options.task = Options::Task::Pool;
            options.pool_socket = value;
            return {};
        case ReadyFd:
            options.ready_fd = TRY(parse_descriptor("ready-fd", value));
            return {};
        case Seccomp:
            if (std::string_view(value) != "kill" && std::string_view(value) != "log")
                return fail("--seccomp takes kill or log, not '{}'", value);
            options.seccomp = std::string_view(value) == "kill" ? jail::FilterMode::Enforce
                                                                : jail::FilterMode::Log;
            return {};
        case StartTime:
            options.start_time_us =
                TRY(parse_number("start-time-us", value, 1, std::uint64_t{1} << 53));
            return {};
        case TransportOption:
            if (std::string_view(value) != "pci" && std::string_view(value) != "mmio")
                return fail("--transport takes pci or mmio, not '{}'", value);
            options.transport = std::string_view(value) == "pci" ? Transport::Pci : Transport::Mmio;
            return {};
        case VersionOption:
            options.task = Options::Task::Version;
            return {};
        default:
            return fail("unknown option");
    }
}

Result<> settle_jail(Options& options) {
    if (!options.no_jail) {
        options.jail.filters = options.seccomp.value_or(jail::FilterMode::Enforce);
        return {};
    }
    if (options.jail.files.given() || options.seccomp)
        return fail(
            "--no-jail contradicts --jail-read, --jail-write, --jail-socket and --seccomp: leave "
            "it or them out");
    options.jail.filters = jail::FilterMode::Off;
    return {};
}

Result<> check_together(const Options& options) {
    if (options.api && !options.api_socket && !options.api_fd && !options.config_file)
        return fail("nothing to do: give --api-sock, --config-file or both (see --help)");
    if (!options.api && (options.api_socket || options.api_fd))
        return fail("--no-api contradicts --api-sock and --api-fd");
    if (!options.api && !options.config_file)
        return fail("--no-api needs --config-file");
    return {};
}

}  // namespace

Result<Options> parse_options(std::span<char*> arguments) {
    Options options;
    ::optind = 0;  // GNU: start over
    ::opterr = 0;
    const int count = static_cast<int>(arguments.size());
    for (;;) {
        const int current = ::optind == 0 ? 1 : ::optind;
        const int name = ::getopt_long(count, arguments.data(), "+:", known.data(), nullptr);
        if (name == -1)
            break;
        const std::string_view text =
            current < count ? arguments[static_cast<std::size_t>(current)] : "";
        if (name == ':')
            return fail("option {} needs a value (see --help)", text);
        if (name == '?')
            return fail("there is no option {}, or it takes no value (see --help)", text);
        TRY(set_option(options, name, ::optarg));
    }
    if (::optind < count)
        return fail("'{}' is not an option (see --help)",
                    arguments[static_cast<std::size_t>(::optind)]);
    TRY(settle_jail(options));
    if (options.task == Options::Task::Run)
        TRY(check_together(options));
    return options;
}

std::string help_text() {
    return R"(masu-vmm: runs one virtual machine, driven by its control socket or a config file.

Usage: masu-vmm --api-sock PATH [--config-file FILE] [OPTION]...
       masu-vmm --no-api --config-file FILE [OPTION]...
       masu-vmm --pool-sock PATH [--log-path FILE] [--level LEVEL] [--ready-fd N] [--no-jail]

Control
  --api-sock PATH        serve HTTP/JSON on a Unix socket at PATH (mode 0600)
  --api-fd N             serve one client on descriptor N, a connected stream socket, as well; the
                         VM is stopped when that client hangs up
  --config-file FILE     configure the VM from FILE (JSON) and start it at once
  --no-api               no control socket; needs --config-file
  --id ID                instance id: letters, digits, '-' (default anonymous-instance)
  --ready-fd N           write one byte to descriptor N and close it once the control socket
                         listens and a VM given by --config-file runs
  --http-api-max-payload-size BYTES
                         largest body of a request (default 51200)
Many VMs of one snapshot
  --pool-sock PATH       no VM but a pool of them, made ahead: PUT /pool and PUT /pool/launch on a
                         Unix socket at PATH (mode 0600)
  --fork-server-fd N     no VM but a process that forks monitors ahead, for the library's pool, whose
                         end of a SOCK_SEQPACKET socket N is
Machine
  --transport pci|mmio   how virtio devices are attached (default pci)
  --no-reboot            end when the guest reboots, instead of starting it again
Console
  --console stdio|none|PATH
                         COM1 on standard input and output (default), nowhere, or on a Unix
                         socket at PATH that any number of clients may attach to
  --console-log FILE     also append serial output to FILE; at 10 MiB it moves to FILE.1
Jail (docs/jail.md): this process confines itself before a client or a guest says anything; with
--pool-sock, each VM of the pool before its snapshot is loaded
  --jail-read PATH       let it read PATH, a file or a folder with all below it. Once this or
  --jail-write PATH      (read, change, make, delete) is given, other files are out of reach, but
                         for those named by other options here and their folders. Repeat for more.
                         Without any: every file of this user's, /usr, /etc and the like read-only.
                         The VMs of a pool: these, their own folder, the snapshot, its disks
  --jail-socket PATH     let it make a Unix socket at PATH, as a vsock's is
  --no-jail              do without all of it: a guest that breaks out of its VM can then do what this
                         user can. Warns of it
  --seccomp kill|log     what a system call that is not allowed does: kill the monitor (default),
                         or only go to the kernel's log, to find out what is missing
Observing
  --log-path FILE        write the log to FILE (default: standard error)
  --level LEVEL          trace, debug, info, warn, error, off (default warn; info with --log-path)
  --metrics-path FILE    append all counters as a line of JSON each minute and at the end
  --boot-timer           print when the milestones of the start were reached
  --start-time-us N      count the milestones from this time of the monotonic clock
  --exit-file FILE       at the end, write {"status", "kind", "reason", "wall_time"} to FILE

  --help, --version

Exit status: 0 the guest powered off or was stopped; 1 error; 3 guest panic; 4 triple fault;
152 bad config file; 153 bad arguments. SIGTERM, SIGINT and SIGHUP stop the guest where it is.

Examples
  masu-vmm --no-api --config-file vm.json
      where vm.json holds
      {"boot-source": {"kernel_image_path": "vmlinuz", "boot_args": "console=ttyS0 root=/dev/vda"},
       "drives": [{"drive_id": "root", "is_root_device": true, "path_on_host": "debian.raw"}],
       "machine-config": {"vcpu_count": 2, "mem_size_mib": 1024}}
  masu-vmm --api-sock /run/vm.sock --console /run/vm.console --console-log vm.log
  curl --unix-socket /run/vm.sock -X PUT http://localhost/actions \
       -d '{"action_type": "InstanceStart"}'
)";
}

}  // namespace masu

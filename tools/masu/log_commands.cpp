// masu logs, masu console: what a VM printed, and what it prints now.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <CLI/App.hpp>

#include <memory>
#include <tuple>

#include "base/fd.hpp"
#include "tools/masu/attach.hpp"
#include "tools/masu/commands.hpp"
#include "tools/masu/monitor_process.hpp"
#include "tools/masu/session.hpp"
#include "tools/masu/unix_socket.hpp"
#include "tools/masu/vm_status.hpp"

namespace masu::cli {
namespace {

constexpr int follow_interval_ms = 100;

struct LogOptions {
    std::string name;
    bool follow = false;
    bool monitor = false;
    bool flows = false;  // the flow log of `interface`
    std::string interface = "net0";
};

// False when nobody reads stdout any more.
Result<bool> copy_rest(int from, const std::string& path) {
    char buffer[64 * 1024];
    for (;;) {
        const auto count = ::read(from, buffer, sizeof buffer);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return fail_errno(errno, "cannot read {}", path);
        if (count == 0)
            return true;
        for (ssize_t done = 0; done < count;) {
            const auto written =
                ::write(STDOUT_FILENO, buffer + done, static_cast<std::size_t>(count - done));
            if (written >= 0)
                done += written;
            else if (errno == EPIPE)
                return false;
            else if (errno != EINTR)
                return fail_errno(errno, "cannot write to stdout");
        }
    }
}

// The monitor moves a console log that has grown large aside, and begins a new one.
bool is_still_at(int fd, const std::string& path) {
    struct stat opened{};
    struct stat named{};
    return ::fstat(fd, &opened) < 0 || ::stat(path.c_str(), &named) < 0 ||
           (opened.st_ino == named.st_ino && opened.st_dev == named.st_dev);
}

Result<Fd> open_log(const std::string& path) {
    Fd log(::open(path.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC, 0600));
    if (!log)
        return fail_errno(errno, "cannot open {}", path);
    return log;
}

Result<int> follow(Fd log, const std::string& path, const MonitorProcess& monitor) {
    for (bool ended = false;;) {
        const bool moved = !is_still_at(log.get(), path);
        if (!TRY(copy_rest(log.get(), path)))
            return 0;
        if (moved) {
            log = TRY(open_log(path));
            continue;
        }
        if (ended)
            return 0;
        ended = monitor.wait(follow_interval_ms);  // and read once more after the end
    }
}

Result<int> show_log(const LogOptions& options) {
    const auto store = TRY(open_store());
    const auto folder = TRY(store.find(options.name));
    const auto path = options.flows     ? folder.flow_log(options.interface)
                      : options.monitor ? folder.monitor_log()
                                        : folder.console_log();
    if (options.flows && ::access(path.c_str(), F_OK) < 0)
        return fail("{} keeps no flow log of {}; start it with `masu run --flow-logs`",
                    options.name, options.interface);
    // Of a flow log, what was put aside last comes first.
    if (const Fd before(options.flows ? ::open((path + ".1").c_str(), O_RDONLY | O_CLOEXEC) : -1);
        before && !TRY(copy_rest(before.get(), path)))
        return 0;
    auto log = TRY(open_log(path));
    if (options.follow) {
        const auto record = TRY(folder.record());
        if (const auto monitor = TRY(running_monitor(folder, record)))
            return follow(std::move(log), path, *monitor);
    }
    std::ignore = TRY(copy_rest(log.get(), path));
    return 0;
}

Result<int> console(const std::string& name) {
    const auto store = TRY(open_store());
    const auto folder = TRY(store.find(name));
    const auto record = TRY(folder.record());
    const auto watched = TRY(folder.watch());
    const auto monitor = TRY(running_monitor(folder, record));
    if (!monitor)
        return fail("{} is not running: {}; `masu logs {}` shows what it printed", name,
                    look_at(folder).text(), name);
    block_attach_signals();
    const auto socket = TRY(connect_unix(record.console_socket()));
    return hold_console(folder, record, *monitor, socket);
}

}  // namespace

void add_logs_command(CLI::App& program, Invocation& invocation) {
    auto* command = program.add_subcommand("logs", "Show what a VM printed on its console");
    auto options = std::make_shared<LogOptions>();
    command->add_option("vm", options->name, "Name of the VM")->type_name(vm_value)->required();
    command->add_flag("-f,--follow", options->follow, "Go on until the VM ends");
    command->add_flag("--monitor", options->monitor, "The monitor's own log instead");
    command->footer(
        "Examples:\n"
        "  masu logs web | tail\n"
        "  masu logs -f web\n"
        "  masu logs --monitor web");
    command->callback(
        [options, &invocation] { invocation.run = [options] { return show_log(*options); }; });
}

void add_flow_logs_command(CLI::App& program, Invocation& invocation) {
    auto* command = program.add_subcommand(
        "flow-logs", "Show which flows a VM's security groups let pass, and which not");
    auto options = std::make_shared<LogOptions>();
    options->flows = true;
    command->add_option("--interface", options->interface, "Which interface (default net0)")
        ->type_name("ID")
        ->check([](const std::string& id) -> std::string {
            return id.contains('/') ? "\"" + id + "\" is no interface" : "";
        });
    command->add_option("vm", options->name, "Name of the VM")->type_name(vm_value)->required();
    command->add_flag("-f,--follow", options->follow, "Go on until the VM ends");
    command->footer(
        "Lines in the format of VPC flow logs, one for each flow and direction in a minute, of "
        "VMs\n"
        "started with --flow-logs.\n"
        "\n"
        "Examples:\n"
        "  masu flow-logs web | grep REJECT\n"
        "  masu flow-logs -f web");
    command->callback(
        [options, &invocation] { invocation.run = [options] { return show_log(*options); }; });
}

void add_console_command(CLI::App& program, Invocation& invocation) {
    auto* command = program.add_subcommand("console", "Join this terminal with a VM's console");
    auto name = std::make_shared<std::string>();
    command->add_option("vm", *name, "Name of the VM")->type_name(vm_value)->required();
    command->footer(
        "Shows the latest output (up to 64 KiB) first. Ctrl-A D leaves, Ctrl-A X stops the VM,\n"
        "Ctrl-A H shows the keys. The exit status is that of `masu run`.\n"
        "\n"
        "Example:\n"
        "  masu console web");
    command->callback([name, &invocation] { invocation.run = [name] { return console(*name); }; });
}

}  // namespace masu::cli

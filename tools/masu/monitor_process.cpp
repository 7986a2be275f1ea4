// fork, exec, pidfd.
#include "tools/masu/monitor_process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <vector>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "base/clock.hpp"
#include "tools/masu/child_program.hpp"
#include "tools/masu/host_file.hpp"
#include "tools/masu/jail_paths.hpp"
#include "tools/masu/unix_socket.hpp"
#include "vmm/jail/jail.hpp"

#ifndef MASU_LIBEXEC_TO_BIN
#error "the build says where libexec lies, seen from the folder of programs"
#endif

namespace masu::cli {
namespace {

constexpr const char* program = "masu-vmm";
constexpr int ready_timeout_ms = 30'000;
constexpr std::size_t log_limit = 1 * MiB;

bool is_program(const std::string& path) {
    struct stat status{};
    return ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
           ::access(path.c_str(), X_OK) == 0;
}

std::string own_folder() {
    std::string path(4096, '\0');
    const auto length = ::readlink("/proc/self/exe", path.data(), path.size());
    path.resize(length > 0 ? static_cast<std::size_t>(length) : 0);
    return path.substr(0, path.rfind('/'));
}

Result<Fd> open_pidfd(pid_t pid) {
    Fd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0U)));  // always close-on-exec
    if (!fd)
        return fail_errno(errno, "cannot open process {}", pid);
    return fd;
}

std::vector<std::string> arguments_for(const VmRecord& record, const VmFolder& folder,
                                       const std::string& log_level, int ready_fd) {
    std::vector<std::string> arguments{record.monitor,
                                       "--id",
                                       record.name,
                                       "--api-sock",
                                       record.api_socket(),
                                       "--console",
                                       record.console_socket(),
                                       "--console-log",
                                       folder.console_log(),
                                       "--exit-file",
                                       folder.exit_file(),
                                       "--log-path",
                                       folder.monitor_log(),
                                       "--level",
                                       log_level,
                                       "--metrics-path",
                                       folder.file("metrics.json"),
                                       "--ready-fd",
                                       std::to_string(ready_fd)};
    // Rule sets are larger than what the API's clients send otherwise.
    arguments.emplace_back("--http-api-max-payload-size");
    arguments.emplace_back("8388608");
    if (record.transport != "pci") {
        arguments.emplace_back("--transport");
        arguments.push_back(record.transport);
    }
    if (!record.reboot)
        arguments.emplace_back("--no-reboot");
    if (record.boot_timer)
        arguments.emplace_back("--boot-timer");
    jail::Options jail{.filters = jail::FilterMode::Off};
    if (record.jail)
        jail = {.files = jail_paths(record, folder)};
    for (auto& argument : jail::arguments(jail))
        arguments.push_back(std::move(argument));
    return arguments;
}

// In the child. Only async-signal-safe calls from here to exec.
[[noreturn]] void become_monitor(char* const* arguments, int null, int log,
                                 std::span<const int> kept) {
    ::setsid();
    exec_in_background(arguments[0], arguments, null, log, kept);
    constexpr std::string_view message = "cannot be executed\n";
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, message.data(), message.size());
    ::_exit(127);
}

// The process that listens on the API socket.
Result<pid_t> listener_of(const VmRecord& record) {
    const auto socket = connect_unix(record.api_socket());
    ucred credentials{};
    socklen_t size = sizeof credentials;
    if (!socket || ::getsockopt(socket->get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0)
        return fail("{} is still being started; try again in a moment", record.name);
    return credentials.pid;
}

std::string last_line(const std::string& path) {
    auto text = read_file(path, log_limit);
    if (!text)
        return {};
    while (!text->empty() && text->back() == '\n')
        text->pop_back();
    return text->substr(text->rfind('\n') + 1);
}

// What is left of a monitor that ended before its API listened.
std::unexpected<Error> early_end(const VmRecord& record, const VmFolder& folder,
                                 const MonitorProcess& process) {
    if (auto reason = killed_by_jail(record, process))
        return fail("{}", *reason);
    if (const auto record_of_exit = folder.exit_record())
        return fail("{}", record_of_exit->reason);
    const auto line = last_line(folder.monitor_log());
    return fail("{} ended before it was ready: {}", record.monitor,
                line.empty() ? "it said nothing" : line);
}

}  // namespace

Result<std::string> find_monitor() {
    if (const char* chosen = std::getenv("MASU_VMM"); chosen != nullptr && *chosen != '\0') {
        if (!is_program(chosen))
            return fail("MASU_VMM is {}, which is not a program; correct or unset it", chosen);
        auto* absolute = ::realpath(chosen, nullptr);
        std::string path = absolute == nullptr ? chosen : absolute;
        std::free(absolute);  // NOLINT: realpath() allocates with malloc
        return path;
    }
    const auto folder = own_folder();
    for (const char* place : {"/", "/../masu-vmm/", MASU_LIBEXEC_TO_BIN})
        if (const auto path = folder + place + program; is_program(path))
            return absolute_path(path);
    const char* search = std::getenv("PATH");
    std::string_view rest = search == nullptr ? "" : search;
    while (!rest.empty()) {
        const auto end = rest.find(':');
        if (const auto path = fmt::format("{}/{}", rest.substr(0, end), program);
            path.front() == '/' && is_program(path))
            return path;
        rest = end == std::string_view::npos ? "" : rest.substr(end + 1);
    }
    return fail(
        "the monitor {} was not found beside {}/masu, in libexec or on PATH; install it, "
        "or set MASU_VMM to it",
        program, folder);
}

bool MonitorProcess::wait(int timeout_ms) const {
    const SystemClock clock;
    const auto end =
        clock.now() + static_cast<Nanoseconds>(timeout_ms < 0 ? 0 : timeout_ms) * 1'000'000;
    for (;;) {
        pollfd entry{pidfd.get(), POLLIN, 0};
        const auto now = clock.now();
        const int left = timeout_ms < 0 ? -1
                         : now >= end   ? 0
                                        : static_cast<int>((end - now) / 1'000'000 + 1);
        const auto ready = ::poll(&entry, 1, left);
        if (ready > 0)
            return true;
        if (ready == 0)
            return false;
    }
}

std::optional<std::string> killed_by_jail(const VmRecord& record, const MonitorProcess& monitor) {
    if (!record.jail)
        return std::nullopt;
    siginfo_t info{};
    // WNOWAIT: who reaps it still can. A process that is no child of this one tells nothing.
    if (::waitid(P_PIDFD, static_cast<id_t>(monitor.pidfd.get()), &info,
                 WEXITED | WNOHANG | WNOWAIT) < 0 ||
        info.si_pid != monitor.pid || info.si_status != SIGSYS ||
        (info.si_code != CLD_KILLED && info.si_code != CLD_DUMPED))
        return std::nullopt;
    return "the monitor was killed by its seccomp filter (SIGSYS): it made a system call that its "
           "jail does not allow; the kernel's log (dmesg) names the call";
}

Result<> MonitorProcess::kill() const {
    if (::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0U) < 0 && errno != ESRCH)
        return fail_errno(errno, "cannot kill process {}", pid);
    return {};
}

Result<MonitorProcess> start_monitor(const VmRecord& record, const VmFolder& folder, const Fd& lock,
                                     const std::string& log_level, std::span<const int> inherited) {
    const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const Fd log(
        ::open(folder.monitor_log().c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
    if (!null || !log)
        return fail_errno(errno, "cannot open {}", log ? "/dev/null" : folder.monitor_log());
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0)
        return fail_errno(errno, "cannot make a pipe");
    const Fd ready(ends[0]);
    Fd signal_ready(ends[1]);

    auto arguments = arguments_for(record, folder, log_level, signal_ready.get());
    const auto pointers = exec_arguments(arguments);
    std::vector<int> kept{lock.get(), signal_ready.get()};
    kept.insert(kept.end(), inherited.begin(), inherited.end());

    const auto pid = ::fork();
    if (pid < 0)
        return fail_errno(errno, "cannot start {}", record.monitor);
    if (pid == 0)
        become_monitor(pointers.data(), null.get(), log.get(), kept);
    signal_ready.reset();

    // The child is not reaped before this opens, so the pid cannot be anybody else's.
    MonitorProcess process{pid, TRY(open_pidfd(pid))};
    pollfd entry{ready.get(), POLLIN, 0};
    int polled = 0;
    do {
        polled = ::poll(&entry, 1, ready_timeout_ms);
    } while (polled < 0 && errno == EINTR);
    char byte = 0;
    if (polled > 0 && ::read(ready.get(), &byte, 1) == 1)
        return process;
    if (polled > 0 && process.wait(1000)) {
        auto end = early_end(record, folder, process);
        ::waitpid(pid, nullptr, 0);
        return end;
    }
    TRY(process.kill());
    ::waitpid(pid, nullptr, 0);
    return fail("{} was not ready within {} s; see {}", record.monitor, ready_timeout_ms / 1000,
                folder.monitor_log());
}

std::unexpected<Error> give_up_start(const VmRecord& record, const MonitorProcess& monitor,
                                     Error error) {
    // What a killed process says last is an ended connection; a moment later it is gone.
    constexpr int moment_ms = 50;
    if (record.jail && monitor.wait(moment_ms))
        if (auto reason = killed_by_jail(record, monitor))
            return fail("{}", *reason);
    if (auto killed = monitor.kill(); !killed)
        return std::unexpected(std::move(killed).error());
    [[maybe_unused]] const bool ended = monitor.wait(-1);
    return std::unexpected(std::move(error));
}

Result<std::optional<MonitorProcess>> running_monitor(const VmFolder& folder,
                                                      const VmRecord& record) {
    auto pid = record.pid;
    if (pid <= 0) {
        // Still being started, or whoever started it was killed before it could write the pid.
        if (!TRY(folder.alive()))
            return std::nullopt;
        pid = TRY(listener_of(record));
    }
    auto pidfd = open_pidfd(pid);
    // The order matters: the lock, still held after the descriptor was opened, shows that the
    // process behind it is the monitor and not a later one of the same pid.
    if (!TRY(folder.alive()))
        return std::nullopt;
    if (!pidfd)
        return std::unexpected(pidfd.error());
    return MonitorProcess{pid, *std::move(pidfd)};
}

Result<> leave_reaper(const Store& store, const VmFolder& folder, const std::string& id) {
    const auto pid = ::fork();
    if (pid < 0)
        return fail_errno(errno, "cannot start the process that honours --rm");
    if (pid > 0) {
        ::waitpid(pid, nullptr, 0);
        return {};
    }
    ::setsid();
    if (::fork() != 0)
        ::_exit(0);
    default_signals();
    const int null = ::open("/dev/null", O_RDWR);
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
        ::dup2(null, fd);
    ::close_range(STDERR_FILENO + 1, ~0U, 0);  // also every copy of the lock
    if (::chdir("/") == 0 && folder.wait_until_dead()) {
        const Fd watched(
            ::open(folder.file("watched").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        if (watched)
            ::flock(watched.get(), LOCK_EX);
        auto own_store = store;
        [[maybe_unused]] const auto removed = own_store.remove(folder.name(), id);
    }
    ::_exit(0);
}

}  // namespace masu::cli

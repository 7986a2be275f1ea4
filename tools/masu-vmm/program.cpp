// Set-up and take-down of the monitor's process.
#include "tools/masu-vmm/program.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>

#include "base/atomic_file.hpp"
#include "vmm/api/config_file.hpp"
#include "vmm/api/json_writer.hpp"
#include "vmm/kvm/host_identity.hpp"
#include "vmm/snapshot/served_memory.hpp"
#include "vmm/version.hpp"

namespace masu {
namespace {

constexpr Nanoseconds boot_timer_interval = 20'000'000;
constexpr int console_flush_milliseconds = 1000;

// What the command line names, it lets be used: files that are made anew or renamed with their
// folder.
void add_own_files(const Options& options, jail::FileRules& rules) {
    for (const auto* path : {&options.api_socket, &options.console_log, &options.log_path,
                             &options.metrics_path, &options.exit_file})
        if (*path)
            rules.write.push_back(folder_of(**path));
    if (options.console != "stdio" && options.console != "none")
        rules.write.push_back(folder_of(options.console));
    if (options.config_file)
        rules.read.push_back(*options.config_file);
}

}  // namespace

void warn_of_no_jail(const Log& log, bool to_caller) {
    log.warn(jail::no_jail_warning);
    if (to_caller)
        fmt::print(stderr, "masu-vmm: {}\n", jail::no_jail_warning);
}

Program::Program(Options options, const Clock& clock, Nanoseconds process_start,
                 MachineFactory factory, MachineRestorer restorer)
    : options_(std::move(options)),
      clock_(clock),
      factory_(std::move(factory)),
      restorer_(std::move(restorer)),
      boot_timer_(clock, process_start) {}

ExitStatus Program::run() {
    if (auto ready = set_up(); ready) {
        if (!exit_)
            loop_->run();
    } else if (!exit_) {
        exit_ = MonitorExit{.status = ExitStatus::Error,
                            .kind = "error",
                            .reason = std::move(ready.error().message)};
    }
    server_.reset();
    monitor_.reset();
    if (console_)
        console_->flush(console_flush_milliseconds);
    print_boot_timer();
    write_exit_file(*exit_);
    if (exit_->status != ExitStatus::Success)
        fmt::print(stderr, "masu-vmm: {}\n", exit_->reason);
    return exit_->status;
}

Result<> Program::set_up() {
    if (options_.log_path)
        log_ = TRY(Log::to_file(*options_.log_path, options_.level.value_or(LogLevel::Info)));
    else
        log_ = Log::to_stderr(options_.level.value_or(LogLevel::Warn));
    log_.info("masu-vmm starts", {kv("version", version()), kv("id", options_.id)});
    loop_ = TRY(EventLoop::create());
    TRY(watch_signals());
    TRY(set_up_console());
    TRY(enter_jail());
    TRY(set_up_monitor());
    if (options_.boot_timer)
        TRY(watch_boot_timer());
    if (options_.config_file)
        TRY(apply_config_file());
    TRY(serve_api());
    return tell_ready();
}

Result<> Program::watch_signals() {
    sigset_t ending;
    sigemptyset(&ending);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP})
        sigaddset(&ending, signal);
    signals_.reset(::signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals_)
        return fail_errno(errno, "cannot watch for signals");
    signal_watch_ = TRY(loop_->watch(signals_.get(), EPOLLIN, [this](std::uint32_t) {
        signalfd_siginfo info{};
        if (::read(signals_.get(), &info, sizeof info) == sizeof info)
            monitor_->stop(fmt::format("stopped by signal SIG{}",
                                       ::sigabbrev_np(static_cast<int>(info.ssi_signo))));
    }));
    return {};
}

Result<> Program::set_up_console() {
    console_ = TRY(Console::create(*loop_, log_));
    if (options_.console_log)
        TRY(console_->open_log(*options_.console_log));
    if (options_.console == "stdio")
        return console_->attach_stdio(STDIN_FILENO, STDOUT_FILENO);
    if (options_.console == "none")
        return {};
    return console_->listen(options_.console);
}

// Once what lies outside is open: log, console. Everything that a client or a guest says comes
// later.
Result<> Program::enter_jail() {
    if (options_.jail.filters == jail::FilterMode::Off) {
        // A pool says it for all.
        warn_of_no_jail(log_, options_.log_path && !options_.api_fd);
        return {};
    }
    auto options = options_.jail;
    if (options.files.given())
        add_own_files(options_, options.files);
    // Out of reach in there.
    std::ignore = kvm::boot_id();
    page_faults_ = snapshot::open_userfaultfd();
    auto jail = jail::enter(options);
    if (!jail)
        return in_context("jail", std::move(jail).error());
    jail_ = *std::move(jail);
    if (jail_.files.abi == 0)
        log_.warn(
            "this kernel has no Landlock (Linux 5.13, among the LSMs it starts with): the monitor "
            "may use whatever files this user may");
    log_.info("jailed", {kv("by", fmt::format("{}", fmt::join(jail_.walls, ", ")))});
    return {};
}

// To whoever asked for a file that the jail may be in the way of. It never is in that of /dev/kvm,
// and who may not use that hears of nothing else.
Error Program::explain(Error error) const {
    if (error.os_errno != EACCES || jail_.files.abi == 0 || ::access("/dev/kvm", R_OK | W_OK) < 0)
        return error;
    error.message +=
        options_.jail.files.given()
            ? "; if its permissions are right, the jail is why: this monitor may only "
              "use the paths it was started with (name this one with --jail-read or "
              "--jail-write)"
            : "; if its permissions are right, the jail is why: the operating system's "
              "own folders cannot be written to (--jail-write PATH names what can)";
    return error;
}

Result<> Program::set_up_monitor() {
    VmConfig initial;
    initial.id = options_.id;
    initial.transport = options_.transport;
    monitor_ = std::make_unique<Monitor>(
        MonitorServices{
            .loop = *loop_,
            .clock = clock_,
            .metrics = metrics_,
            .boot_timer = boot_timer_,
            .console = *console_,
            .create_machine = factory_,
            .restore_machine = restorer_,
            .filters = options_.jail.filters,
            .walls = jail_.walls,
            .page_faults = std::move(page_faults_),
            .ended =
                [this](const MonitorExit& exit) {
                    exit_ = exit;
                    loop_->stop();
                },
            .memory_lost = [this](std::string reason) { end_at_once(std::move(reason)); }},
        log_, std::move(initial), options_.reboot);
    if (options_.metrics_path)
        TRY(monitor_->apply(action::SetMetrics{
            {.metrics_path = *options_.metrics_path, .emit_id = true, .properties = {}}}));
    return {};
}

// What is wrong with the file has a status of its own; what goes wrong at the start has not.
Result<> Program::apply_config_file() {
    const auto& path = *options_.config_file;
    const auto refuse = [&](Error error) {
        exit_ = MonitorExit{.status = ExitStatus::BadConfigFile,
                            .kind = "error",
                            .reason = std::move(error.message)};
        return fail("{}", exit_->reason);
    };
    auto actions = api::read_config_file(path);
    if (!actions)
        return refuse(std::move(actions.error()));
    for (const auto& action : *actions)
        if (auto applied = monitor_->apply(action); !applied)
            return refuse(
                in_context(fmt::format("config file {}", path), explain(std::move(applied.error())))
                    .error());
    if (auto started = monitor_->apply(action::StartInstance{}); !started)
        return std::unexpected(explain(std::move(started.error())));
    return {};
}

Result<> Program::serve_api() {
    if (!options_.api_socket && !options_.api_fd)
        return {};
    api::HttpLimits limits;
    limits.body = options_.max_payload;
    server_ = std::make_unique<api::HttpServer>(
        *loop_, limits, [this](const api::HttpRequest& request) { return handle(request); }, log_);
    if (options_.api_socket)
        TRY(server_->listen(*options_.api_socket));
    return options_.api_fd ? serve_owner() : Result<>();
}

// Who holds the other end owns the VM: it does not outlive them.
Result<> Program::serve_owner() {
    Fd socket(*options_.api_fd);
    int type = 0;
    socklen_t size = sizeof type;
    if (::getsockopt(socket.get(), SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_STREAM)
        return fail("descriptor {} of --api-fd is no stream socket", socket.release());
    ::fcntl(socket.get(), F_SETFD, FD_CLOEXEC);
    owner_ = TRY(socket.duplicate());
    owner_watch_ = TRY(loop_->watch(owner_.get(), EPOLLRDHUP, [this](std::uint32_t) {
        owner_watch_ = {};
        monitor_->stop("the owner of its control socket has gone");
    }));
    server_->serve(std::move(socket));
    return {};
}

api::HttpReply Program::handle(const api::HttpRequest& request) {
    metrics_.counter("api_server", "requests").add();
    auto action = api::route(request);
    auto outcome = action ? monitor_->apply(*action)
                          : Result<VmmReply>(std::unexpected(std::move(action.error())));
    if (!outcome) {
        outcome = std::unexpected(explain(std::move(outcome.error())));
        metrics_.counter("api_server", "refused_requests").add();
        log_.info("request refused",
                  {kv("method", request.method), kv("path", request.target.substr(0, 128)),
                   kv("reason", outcome.error().message)});
    }
    return api::to_reply(outcome);
}

Result<> Program::tell_ready() const {
    if (!options_.ready_fd)
        return {};
    const Fd ready(*options_.ready_fd);
    if (::write(ready.get(), "\n", 1) != 1)
        return fail_errno(errno, "cannot write to the ready descriptor {}", *options_.ready_fd);
    return {};
}

// A milestone may be reached in a vCPU thread; looking now and then costs that thread nothing.
Result<> Program::watch_boot_timer() {
    boot_timer_check_.emplace(TRY(loop_->timer([this] {
        if (boot_timer_.since_start(Milestone::Init))
            print_boot_timer();
        else
            boot_timer_check_->arm(boot_timer_interval);
    })));
    boot_timer_check_->arm(boot_timer_interval);
    return {};
}

void Program::print_boot_timer() {
    if (!options_.boot_timer || boot_timer_printed_)
        return;
    boot_timer_printed_ = true;
    std::string table = "milestone             since start\n";
    for (std::size_t i = 0; i < milestone_count; ++i) {
        const auto milestone = static_cast<Milestone>(i);
        const auto time = boot_timer_.since_start(milestone);
        table += time ? fmt::format("{:<18}{:>12.3f} ms\n", to_string(milestone),
                                    static_cast<double>(*time) / 1e6)
                      : fmt::format("{:<18}{:>15}\n", to_string(milestone), "not reached");
    }
    fmt::print(stderr, "{}", table);
}

void Program::end_at_once(std::string reason) const {
    const MonitorExit exit{
        .status = ExitStatus::Error, .kind = "memory-lost", .reason = std::move(reason)};
    log_.error("instance ended", {kv("kind", exit.kind), kv("reason", exit.reason)});
    write_exit_file(exit);
    fmt::print(stderr, "masu-vmm: {}\n", exit.reason);
    ::_exit(static_cast<int>(exit.status));
}

void Program::write_exit_file(const MonitorExit& exit) const {
    if (!options_.exit_file)
        return;
    api::JsonWriter json;
    json.begin_object()
        .field("status", static_cast<unsigned>(exit.status))
        .field("kind", exit.kind)
        .field("reason", exit.reason)
        .field("wall_time", clock_.wall() / 1'000'000'000)
        .end_object();
    if (auto written = write_file_atomically(*options_.exit_file, json.text() + "\n"); !written)
        fmt::print(stderr, "masu-vmm: {}\n", written.error().message);
}

}  // namespace masu

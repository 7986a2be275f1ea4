#include "tools/masu-vmm/pool_program.hpp"

#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <csignal>

#include "tools/masu-vmm/program.hpp"
#include "vmm/api/http_server.hpp"
#include "vmm/pool/pool_api.hpp"

namespace masu {
namespace {

constexpr const char* own_program = "/proc/self/exe";
constexpr std::size_t max_clients = 256;

Result<Fd> open_signals() {
    sigset_t ending;
    sigemptyset(&ending);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP})
        sigaddset(&ending, signal);
    Fd signals(::signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals)
        return fail_errno(errno, "cannot watch for signals");
    return signals;
}

Result<> tell_ready(int number) {
    const Fd ready(number);
    if (::write(ready.get(), "\n", 1) != 1)
        return fail_errno(errno, "cannot write to the ready descriptor {}", number);
    return {};
}

Result<> run(const Options& options) {
    auto log = options.log_path
                   ? TRY(Log::to_file(*options.log_path, options.level.value_or(LogLevel::Info)))
                   : Log::to_stderr(options.level.value_or(LogLevel::Warn));
    if (options.jail.filters == jail::FilterMode::Off)
        warn_of_no_jail(log, options.log_path.has_value());
    const auto loop = TRY(EventLoop::create());
    const auto host = TRY(pool::ForkServer::start(*loop, own_program));
    pool::PoolApi pool(*loop, *host, log, [&loop] { loop->stop(); }, options.jail);
    api::HttpLimits limits;
    limits.body = options.max_payload;
    limits.connections = max_clients;
    limits.unsent = 1024 * std::size_t{1024};
    api::HttpServer server(
        *loop, limits, api::DeferredHttpHandler([&pool](const auto& request, const auto& answer) {
            pool.handle(request, answer);
        }),
        log);
    const auto signals = TRY(open_signals());
    const auto signal_watch = TRY(loop->watch(signals.get(), EPOLLIN, [&](std::uint32_t) {
        signalfd_siginfo info{};
        if (::read(signals.get(), &info, sizeof info) == sizeof info)
            pool.end();
    }));
    TRY(server.listen(*options.pool_socket));
    if (options.ready_fd)
        TRY(tell_ready(*options.ready_fd));
    loop->run();
    return {};
}

}  // namespace

ExitStatus run_pool(const Options& options) {
    if (const auto done = run(options); !done) {
        fmt::print(stderr, "masu-vmm: {}\n", done.error().message);
        return ExitStatus::Error;
    }
    return ExitStatus::Success;
}

}  // namespace masu

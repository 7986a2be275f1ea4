// masu-vmm: one virtual machine, driven by its control socket or a config file.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "tools/masu-vmm/pool_program.hpp"
#include "tools/masu-vmm/program.hpp"
#include "vmm/pool/fork_server.hpp"
#include "vmm/version.hpp"

namespace {

using namespace masu;

// Before any thread is made: all inherit it.
void set_signals() {
    sigset_t ending;
    sigemptyset(&ending);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP})
        sigaddset(&ending, signal);
    ::sigprocmask(SIG_BLOCK, &ending, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
}

Result<Nanoseconds> process_start(const Options& options, const Clock& clock) {
    const auto now = clock.now();
    if (!options.start_time_us)
        return now;
    const auto start = *options.start_time_us * 1000;
    if (start > now)
        return fail("--start-time-us {} lies in the future of the monotonic clock",
                    *options.start_time_us);
    return start;
}

ExitStatus run(std::span<char*> arguments);

// Each child does what its order says as if that were its command line.
ExitStatus serve_forks(int socket) {
    const auto served = pool::serve_forks(Fd(socket), [](std::span<std::string> arguments) {
        std::vector<char*> words;
        for (auto& argument : arguments)
            words.push_back(argument.data());
        return static_cast<int>(run(words));
    });
    if (!served)
        fmt::print(stderr, "masu-vmm: {}\n", served.error().message);
    return served ? ExitStatus::Success : ExitStatus::Error;
}

ExitStatus run(std::span<char*> arguments) {
    const SystemClock clock;
    auto options = parse_options(arguments);
    auto start = options ? process_start(*options, clock)
                         : Result<Nanoseconds>(std::unexpected(options.error()));
    if (!start) {
        fmt::print(stderr, "masu-vmm: {}\n", start.error().message);
        return ExitStatus::BadArguments;
    }
    switch (options->task) {
        case Options::Task::Help:
            fmt::print("{}", help_text());
            return ExitStatus::Success;
        case Options::Task::Version:
            fmt::print("masu-vmm {}\n", version());
            return ExitStatus::Success;
        case Options::Task::Pool:
            set_signals();
            return run_pool(*options);
        case Options::Task::ServeForks:
            set_signals();
            return serve_forks(*options->fork_server_fd);
        case Options::Task::Run:
            break;
    }
    set_signals();
    Program program(*std::move(options), clock, *start, Machine::create, Machine::restore);
    return program.run();
}

}  // namespace

int main(int count, char** arguments) {
    try {
        return static_cast<int>(run({arguments, static_cast<std::size_t>(count)}));
    } catch (const std::exception& error) {
        // Out of memory, as far as is known; nothing else throws this far.
        std::fprintf(stderr, "masu-vmm: %s\n", error.what());
        return static_cast<int>(ExitStatus::Error);
    }
}

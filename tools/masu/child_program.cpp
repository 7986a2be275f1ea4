// fork, exec, poll.
#include "tools/masu/child_program.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>

#include "base/bytes.hpp"
#include "base/fd.hpp"

namespace masu::cli {
namespace {

constexpr int exec_failed = 127;
constexpr int poll_ms = 100;  // between two looks for an interruption
constexpr int patience_ms = 5'000;

struct Pipe {
    Fd reading;
    Fd writing;
};

Result<Pipe> make_pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0)
        return fail_errno(errno, "cannot make a pipe");
    return Pipe{Fd(ends[0]), Fd(ends[1])};
}

[[noreturn]] void become(const ChildProgram& program, char* const* arguments, int output,
                         int errors, int failure, const Interruptions& interruptions) {
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    const int null = ::open("/dev/null", O_RDONLY);
    ::dup2(null, STDIN_FILENO);
    ::dup2(output, STDOUT_FILENO);
    ::dup2(errors, STDERR_FILENO);
    interruptions.let_through();
    int error = 0;
    if (program.own_mounts && (::unshare(CLONE_NEWNS) < 0 ||
                               ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) < 0))
        error = errno;
    for (const auto& [name, value] : program.environment)
        ::setenv(name.c_str(), value.c_str(), 1);
    if (error == 0) {
        ::execvp(arguments[0], arguments);
        error = errno;
    }
    [[maybe_unused]] const auto written = ::write(failure, &error, sizeof error);
    ::_exit(exec_failed);
}

// Passes on what has come; false at the end of the stream.
bool drain(const Fd& from, const std::function<void(std::string_view)>& to) {
    char buffer[16 * KiB];
    const auto count = ::read(from.get(), buffer, sizeof buffer);
    if (count < 0)
        return errno == EINTR || errno == EAGAIN;
    if (count > 0 && to)
        to({buffer, static_cast<std::size_t>(count)});
    return count > 0;
}

int wait_for(pid_t pid) {
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Asks, so that it can clear up what it made, and then insists.
void end_group(pid_t pid) {
    ::kill(-pid, SIGTERM);
    for (int waited = 0; waited < patience_ms; waited += poll_ms) {
        siginfo_t info{};
        if (::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
            info.si_pid == pid)
            break;
        ::poll(nullptr, 0, poll_ms);
    }
    ::kill(-pid, SIGKILL);
    wait_for(pid);
}

}  // namespace

void default_signals() {
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    for (const int signal : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP})
        ::signal(signal, SIG_DFL);
}

void exec_in_background(const char* program, char* const* arguments, int null, int log,
                        std::span<const int> kept) {
    default_signals();
    ::dup2(null, STDIN_FILENO);
    ::dup2(null, STDOUT_FILENO);
    ::dup2(log, STDERR_FILENO);
    // Nothing of this program's caller goes on for as long as the other lives.
    ::close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    for (const int number : kept)
        ::fcntl(number, F_SETFD, 0);
    if (::chdir("/") == 0)
        ::execv(program, arguments);
}

Result<> start_in_background(std::vector<std::string> arguments, const std::string& log_path,
                             std::span<const int> kept, std::string_view what) {
    const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const Fd log(::open(log_path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
    if (!null || !log)
        return fail_errno(errno, "cannot open {}", log ? "/dev/null" : log_path);
    const auto pointers = exec_arguments(arguments);
    const auto pid = ::fork();
    if (pid < 0)
        return fail_errno(errno, "cannot start {}", what);
    if (pid == 0) {
        ::setsid();
        if (::fork() == 0) {
            exec_in_background("/proc/self/exe", pointers.data(), null.get(), log.get(), kept);
            ::_exit(exec_failed);
        }
        ::_exit(0);
    }
    while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return {};
}

std::vector<char*> exec_arguments(std::vector<std::string>& arguments) {
    std::vector<char*> pointers;
    for (auto& argument : arguments)
        pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    return pointers;
}

Result<int> run_child(const ChildProgram& program, const Interruptions& interruptions) {
    auto output = TRY(make_pipe());
    auto errors = TRY(make_pipe());
    auto failure = TRY(make_pipe());
    auto arguments = program.arguments;
    const auto pointers = exec_arguments(arguments);
    const auto pid = ::fork();
    if (pid < 0)
        return fail_errno(errno, "cannot start {}", program.arguments.front());
    if (pid == 0)
        become(program, pointers.data(), output.writing.get(), errors.writing.get(),
               failure.writing.get(), interruptions);
    output.writing.reset();
    errors.writing.reset();
    failure.writing.reset();

    pollfd entries[2] = {{output.reading.get(), POLLIN, 0}, {errors.reading.get(), POLLIN, 0}};
    while (entries[0].fd >= 0 || entries[1].fd >= 0) {
        if (const auto go_on = interruptions.check(); !go_on) {
            end_group(pid);
            return std::unexpected(go_on.error());
        }
        ::poll(entries, 2, poll_ms);
        if (entries[0].revents != 0 && !drain(output.reading, program.output))
            entries[0].fd = -1;
        if (entries[1].revents != 0 && !drain(errors.reading, program.errors))
            entries[1].fd = -1;
    }
    int error = 0;
    const bool never_ran =
        ::read(failure.reading.get(), &error, sizeof error) == static_cast<ssize_t>(sizeof error);
    const int status = wait_for(pid);
    if (never_ran && error == ENOENT)
        return fail("the program {} is not there; install the package {}",
                    program.arguments.front(), program.package);
    if (never_ran)
        return fail_errno(error, "cannot run {}", program.arguments.front());
    return status;
}

}  // namespace masu::cli

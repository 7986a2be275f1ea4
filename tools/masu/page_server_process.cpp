// Starting the page server, which is this program itself as a process of its own.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <memory>

#include "tools/masu/child_program.hpp"
#include "tools/masu/commands.hpp"
#include "tools/masu/page_server.hpp"

namespace masu::cli {
namespace {

// In the child's child. Only async-signal-safe calls from here to exec.
[[noreturn]] void become_page_server(char* const* arguments, int null, int log, int listener,
                                     int hope) {
    for (const int signal : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP})
        ::signal(signal, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::dup2(null, STDIN_FILENO);
    ::dup2(null, STDOUT_FILENO);
    ::dup2(log, STDERR_FILENO);
    ::close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
    ::fcntl(listener, F_SETFD, 0);
    ::fcntl(hope, F_SETFD, 0);
    if (::chdir("/") == 0)
        ::execv("/proc/self/exe", arguments);
    ::_exit(127);
}

Result<Fd> listen_at(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
        return fail(
            "the socket path {} is longer than {} bytes; set MASU_RUNTIME_DIR to a "
            "shorter folder",
            path, sizeof address.sun_path - 1);
    path.copy(address.sun_path, path.size());
    Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!listener)
        return fail_errno(errno, "cannot make a socket");
    // NOLINTNEXTLINE: the sockets API takes every address as sockaddr
    if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0 ||
        ::chmod(path.c_str(), 0600) < 0 || ::listen(listener.get(), 1) < 0)
        return fail_errno(errno, "cannot make the socket {}", path);
    return listener;
}

}  // namespace

Result<Fd> start_page_server(const std::string& directory, const std::string& socket,
                             const std::string& log_path, bool working_set) {
    const auto listener = TRY(listen_at(socket));
    const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const Fd log(::open(log_path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600));
    if (!null || !log)
        return fail_errno(errno, "cannot open {}", log ? "/dev/null" : log_path);
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0)
        return fail_errno(errno, "cannot make a pipe");
    const Fd hope(ends[0]);
    Fd hoping(ends[1]);
    std::vector<std::string> arguments{"masu", "page-server", directory,
                                       std::to_string(listener.get()), std::to_string(hope.get())};
    if (!working_set)
        arguments.emplace_back("--no-working-set");
    const auto pointers = exec_arguments(arguments);
    const auto pid = ::fork();
    if (pid < 0)
        return fail_errno(errno, "cannot start the page server");
    if (pid == 0) {
        ::setsid();
        if (::fork() == 0)
            become_page_server(pointers.data(), null.get(), log.get(), listener.get(), hope.get());
        ::_exit(0);
    }
    while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    return hoping;
}

// For masu itself: what start_page_server() runs.
void add_page_server(CLI::App& program, Invocation& invocation) {
    struct Options {
        std::string directory;
        int listener = -1;
        int hope = -1;
        bool no_working_set = false;
    };
    auto* command = program.add_subcommand("page-server", "Brings in a VM's compressed memory");
    command->group("");
    auto options = std::make_shared<Options>();
    command->add_option("directory", options->directory)->required();
    command->add_option("listener", options->listener)->required();
    command->add_option("hope", options->hope)->required();
    command->add_flag("--no-working-set", options->no_working_set);
    command->callback([&invocation, options] {
        invocation.run = [options]() -> Result<int> {
            TRY(serve_pages(options->directory, Fd(options->listener), !options->no_working_set,
                            Fd(options->hope)));
            return 0;
        };
    });
}

}  // namespace masu::cli

// Runs programs on behalf of the test harness, on the host itself or inside the nested host: a line
// protocol on stdin and stdout, many programs at a time, each on pipes or on a terminal of its own.
//
// To the agent:   run ID pipe|pty BASE64(argv, NUL-separated)    in ID BASE64    eof ID
//                 kill ID SIGNAL (to the program's session)
// From the agent: ready    out ID BASE64    err ID BASE64    exit ID STATUS (128 + signal if
// killed)
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

constexpr std::string_view alphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::string encode(std::string_view bytes) {
    std::string text;
    text.reserve((bytes.size() + 2) / 3 * 4);
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        std::uint32_t group = 0;
        for (std::size_t j = 0; j < 3; ++j) {
            const bool present = i + j < bytes.size();
            group = group << 8 | (present ? static_cast<unsigned char>(bytes[i + j]) : 0u);
        }
        for (std::size_t j = 0; j < 4; ++j) {
            const bool present = i + j <= bytes.size();
            text += present ? alphabet[group >> (18 - 6 * j) & 63] : '=';
        }
    }
    return text;
}

std::string decode(std::string_view text) {
    std::string bytes;
    std::uint32_t group = 0;
    unsigned bits = 0;
    for (const char c : text) {
        const std::size_t value = alphabet.find(c);
        if (value == std::string_view::npos)
            break;
        group = group << 6 | static_cast<std::uint32_t>(value);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            bytes += static_cast<char>(group >> bits & 0xff);
        }
    }
    return bytes;
}

void write_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t n = write(fd, bytes.data(), bytes.size());
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            _exit(1);  // the harness is gone
        bytes.remove_prefix(static_cast<std::size_t>(n));
    }
}

void send(std::string_view tag, const std::string& id, const std::string& rest) {
    write_all(STDOUT_FILENO, std::string(tag) + ' ' + id + ' ' + rest + '\n');
}

struct Program {
    pid_t pid = -1;
    int pidfd = -1;
    int in = -1;  // on a terminal, in and out are one descriptor
    int out = -1;
    int err = -1;
    std::string pending;  // input that the program has not taken yet
    bool eof_wanted = false;
};

class Agent {
  public:
    int serve();

  private:
    void handle(std::string_view line);
    void run(const std::string& id, bool on_terminal, const std::string& argv);
    void feed(Program& program);
    // False when this side of the program has closed.
    bool drain(const std::string& id, std::string_view tag, int fd);
    void finish(const std::string& id, Program& program);

    std::map<std::string, Program> programs_;
    std::string input_;
};

std::string_view next_word(std::string_view& line) {
    const std::size_t end = line.find(' ');
    const std::string_view word = line.substr(0, end);
    line.remove_prefix(end == std::string_view::npos ? line.size() : end + 1);
    return word;
}

void set_nonblocking(int fd) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

void close_fd(int& fd) {
    if (fd >= 0)
        close(fd);
    fd = -1;
}

[[noreturn]] void exec_child(std::string argv) {
    std::vector<char*> arguments;
    for (std::size_t at = 0; at < argv.size(); at = argv.find('\0', at) + 1) {
        arguments.push_back(argv.data() + at);
        if (argv.find('\0', at) == std::string::npos)
            break;
    }
    arguments.push_back(nullptr);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    signal(SIGPIPE, SIG_DFL);
    execvp(arguments[0], arguments.data());
    const std::string complaint = std::string(arguments[0]) + ": " + std::strerror(errno) + '\n';
    write_all(STDERR_FILENO, complaint);
    _exit(127);
}

void Agent::run(const std::string& id, bool on_terminal, const std::string& argv) {
    Program program;
    if (on_terminal) {
        winsize size{.ws_row = 40, .ws_col = 200, .ws_xpixel = 0, .ws_ypixel = 0};
        int master = -1;
        program.pid = forkpty(&master, nullptr, nullptr, &size);
        if (program.pid == 0)
            exec_child(argv);
        program.in = program.out = master;
    } else {
        int in[2];
        int out[2];
        int err[2];
        if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
            _exit(1);
        program.pid = fork();
        if (program.pid == 0) {
            setsid();
            dup2(in[0], STDIN_FILENO);
            dup2(out[1], STDOUT_FILENO);
            dup2(err[1], STDERR_FILENO);
            exec_child(argv);
        }
        close_fd(in[0]);
        close_fd(out[1]);
        close_fd(err[1]);
        program.in = in[1];
        program.out = out[0];
        program.err = err[0];
        set_nonblocking(program.err);
    }
    if (program.pid < 0)
        _exit(1);
    fcntl(program.in, F_SETFD, FD_CLOEXEC);
    set_nonblocking(program.in);
    set_nonblocking(program.out);
    program.pidfd = static_cast<int>(syscall(SYS_pidfd_open, program.pid, 0));
    programs_[id] = program;
}

void Agent::feed(Program& program) {
    while (!program.pending.empty() && program.in >= 0) {
        const ssize_t n = write(program.in, program.pending.data(), program.pending.size());
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0)
            program.pending.clear();  // it does not read any more
        program.pending.erase(0, n > 0 ? static_cast<std::size_t>(n) : 0);
    }
    if (program.eof_wanted && program.in >= 0 && program.in != program.out)
        close_fd(program.in);
}

bool Agent::drain(const std::string& id, std::string_view tag, int fd) {
    char buffer[3072];
    const ssize_t n = read(fd, buffer, sizeof buffer);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0)
        return false;
    send(tag, id, encode(std::string_view(buffer, static_cast<std::size_t>(n))));
    return true;
}

void Agent::finish(const std::string& id, Program& program) {
    // What it wrote before it ended; a grandchild that keeps the pipe open is not waited for.
    for (const auto& [tag, fd] : {std::pair("out", program.out), std::pair("err", program.err)}) {
        pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
        while (fd >= 0 && poll(&ready, 1, 0) > 0 && (ready.revents & POLLIN) != 0)
            if (!drain(id, tag, fd))
                break;
    }
    int status = 0;
    waitpid(program.pid, &status, 0);
    if (program.in == program.out)
        program.in = -1;
    close_fd(program.in);
    close_fd(program.out);
    close_fd(program.err);
    close_fd(program.pidfd);
    send("exit", id,
         std::to_string(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)));
}

void Agent::handle(std::string_view line) {
    const std::string_view verb = next_word(line);
    const std::string id(next_word(line));
    if (verb == "run") {
        const bool on_terminal = next_word(line) == "pty";
        run(id, on_terminal, decode(line));
        return;
    }
    const auto found = programs_.find(id);
    if (found == programs_.end())
        return;  // it has ended meanwhile
    Program& program = found->second;
    if (verb == "in") {
        program.pending += decode(line);
        feed(program);
    } else if (verb == "eof") {
        program.eof_wanted = true;
        feed(program);
    } else if (verb == "kill") {
        int number = SIGTERM;
        std::from_chars(line.data(), line.data() + line.size(), number);
        kill(-program.pid, number);
    }
}

int Agent::serve() {
    write_all(STDOUT_FILENO, "ready\n");
    while (true) {
        std::vector<pollfd> watched{{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0}};
        const auto watch = [&](int fd, short events) {
            watched.push_back({.fd = fd, .events = events, .revents = 0});
        };
        for (const auto& [id, program] : programs_) {
            watch(program.pidfd, POLLIN);
            watch(program.out, POLLIN);
            watch(program.err, POLLIN);
            watch(program.pending.empty() ? -1 : program.in, POLLOUT);
        }
        if (poll(watched.data(), watched.size(), -1) < 0)
            continue;
        std::size_t at = 1;
        for (auto it = programs_.begin(); it != programs_.end(); at += 4) {
            Program& program = it->second;
            if (watched[at + 3].revents != 0)
                feed(program);
            if (watched[at + 1].revents != 0 && !drain(it->first, "out", program.out)) {
                if (program.in == program.out)
                    program.in = -1;
                close_fd(program.out);
            }
            if (watched[at + 2].revents != 0 && !drain(it->first, "err", program.err))
                close_fd(program.err);
            if (watched[at].revents != 0) {
                finish(it->first, program);
                it = programs_.erase(it);
            } else {
                ++it;
            }
        }
        if (watched[0].revents == 0)
            continue;
        char buffer[4096];
        const ssize_t n = read(STDIN_FILENO, buffer, sizeof buffer);
        if (n <= 0)
            break;
        input_.append(buffer, static_cast<std::size_t>(n));
        std::size_t end;
        while ((end = input_.find('\n')) != std::string::npos) {
            handle(std::string_view(input_).substr(0, end));
            input_.erase(0, end + 1);
        }
    }
    for (const auto& [id, program] : programs_)
        kill(-program.pid, SIGKILL);
    return 0;
}

}  // namespace

// Holds a VM with an idle vCPU for as long as the host is up. KVM patches the host kernel's code
// when the first VM comes and the last one goes, and when the last LAPIC that is still off goes on:
// under the emulator another CPU may run that very code half patched, and the nested host dies of
// it.
int park() {
    const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    const int vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
    if (vm < 0 || ioctl(vm, KVM_CREATE_IRQCHIP, 0) < 0 || ioctl(vm, KVM_CREATE_VCPU, 0) < 0) {
        perror("nested-agent: cannot park a VM");
        return 1;
    }
    puts("parked");
    fflush(stdout);
    for (;;)
        pause();
}

int main(int argc, char** argv) {
    signal(SIGPIPE, SIG_IGN);
    if (argc == 2 && std::string_view(argv[1]) == "--park")
        return park();
    // On a serial line: bytes as they are, no echo.
    if (termios terminal{}; tcgetattr(STDIN_FILENO, &terminal) == 0) {
        cfmakeraw(&terminal);
        tcsetattr(STDIN_FILENO, TCSANOW, &terminal);
    }
    return Agent().serve();
}

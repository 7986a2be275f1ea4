// A poll() loop between stdin, the console socket, the monitor's pidfd and our signals.
#include "tools/masu/attach.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <optional>

#include "tools/masu/terminal.hpp"

namespace masu::cli {
namespace {

// Input waits in the terminal or pipe while the guest has this much to read still.
constexpr std::size_t input_limit = 64 * 1024;

constexpr std::string_view help_text =
    "\r\n"
    "Ctrl-A X       stop the VM at once, and leave\r\n"
    "Ctrl-A D       leave, and let the VM go on\r\n"
    "Ctrl-A Ctrl-A  send Ctrl-A to the guest\r\n"
    "Ctrl-A H       this help\r\n";

sigset_t attach_signals() {
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT})
        sigaddset(&set, signal);
    return set;
}

class Attachment {
  public:
    Attachment(int console, int monitor, Fd signals)
        : console_(console), monitor_(monitor), signals_(std::move(signals)) {}

    Result<AttachResult> run() {
        if (is_own_terminal(STDIN_FILENO))
            terminal_.emplace(TRY(RawTerminal::enter(STDIN_FILENO)));
        else if (::isatty(STDIN_FILENO) != 0)
            input_open_ = false;  // in the background of its terminal, a reader is stopped
        while (!end_) {
            std::array<pollfd, 4> entries{
                pollfd{signals_.get(), POLLIN, 0},
                pollfd{wants_input() ? STDIN_FILENO : -1, POLLIN, 0},
                pollfd{console_, static_cast<short>(POLLIN | (to_guest_.empty() ? 0 : POLLOUT)), 0},
                // Only once the console has ended: until then there is output to fetch.
                pollfd{console_ < 0 ? monitor_ : -1, POLLIN, 0}};
            if (::poll(entries.data(), entries.size(), -1) < 0 && errno != EINTR)
                return fail_errno(errno, "cannot wait for the console");
            if (entries[0].revents != 0)
                take_signal();
            if (entries[2].revents & (POLLIN | POLLHUP | POLLERR))
                take_output();
            if (entries[1].revents != 0 && !end_)
                take_input();
            if (console_ >= 0 && !to_guest_.empty())
                send_input();
            if (entries[3].revents != 0)
                end_ = AttachResult{AttachEnd::Stopped, 0};
        }
        return *end_;
    }

  private:
    [[nodiscard]] bool wants_input() const {
        return input_open_ && console_ >= 0 && to_guest_.size() < input_limit;
    }

    void take_signal() {
        signalfd_siginfo info{};
        if (::read(signals_.get(), &info, sizeof info) != sizeof info)
            return;
        const auto signal = static_cast<int>(info.ssi_signo);
        if (signal == SIGCONT) {
            if (terminal_ && is_own_terminal(STDIN_FILENO))
                terminal_->resume();
        } else if (signal == SIGTSTP) {
            if (terminal_)
                terminal_->suspend();
            ::raise(SIGSTOP);
        } else if (signal == SIGINT) {
            end_ = AttachResult{AttachEnd::Quit, signal};
        } else {
            end_ = AttachResult{AttachEnd::Interrupted, signal};
        }
    }

    void take_output() {
        const auto count = ::recv(console_, buffer_.data(), buffer_.size(), MSG_DONTWAIT);
        if (count < 0 && (errno == EINTR || errno == EAGAIN))
            return;
        if (count <= 0) {
            console_ = -1;
            return;
        }
        std::string_view left(buffer_.data(), static_cast<std::size_t>(count));
        while (!left.empty()) {
            const auto written = ::write(STDOUT_FILENO, left.data(), left.size());
            if (written > 0) {
                left.remove_prefix(static_cast<std::size_t>(written));
            } else if (errno == EAGAIN) {
                pollfd entry{STDOUT_FILENO, POLLOUT, 0};
                ::poll(&entry, 1, -1);
            } else if (errno != EINTR) {
                end_ = AttachResult{AttachEnd::OutputGone, 0};
                return;
            }
        }
    }

    void take_input() {
        const auto count = ::read(STDIN_FILENO, buffer_.data(), buffer_.size());
        if (count < 0 && (errno == EINTR || errno == EAGAIN))
            return;
        if (count <= 0) {
            input_open_ = false;
            return;
        }
        std::string_view typed(buffer_.data(), static_cast<std::size_t>(count));
        if (!terminal_) {
            to_guest_ += typed;
            return;
        }
        while (!typed.empty() && !end_) {
            const auto step = keys_.feed(typed);
            typed.remove_prefix(step.used);
            to_guest_ += step.to_guest;
            if (step.command)
                obey(*step.command);
        }
    }

    void obey(EscapeCommand command) {
        if (command == EscapeCommand::Help) {
            [[maybe_unused]] const auto written =
                ::write(STDERR_FILENO, help_text.data(), help_text.size());
            return;
        }
        end_ =
            AttachResult{command == EscapeCommand::Quit ? AttachEnd::Quit : AttachEnd::Detached, 0};
    }

    void send_input() {
        const auto sent =
            ::send(console_, to_guest_.data(), to_guest_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0)
            to_guest_.erase(0, static_cast<std::size_t>(sent));
        else if (errno != EINTR && errno != EAGAIN)
            to_guest_.clear();  // the console has ended; reading it says so, too
    }

    int console_;  // -1 when it has ended
    int monitor_;
    Fd signals_;
    std::optional<RawTerminal> terminal_;
    EscapeKeys keys_;
    std::string to_guest_;
    std::array<char, 64 * 1024> buffer_{};
    bool input_open_ = true;
    std::optional<AttachResult> end_;
};

}  // namespace

void block_attach_signals() {
    const auto set = attach_signals();
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
}

void unblock_attach_signals() {
    const auto set = attach_signals();
    ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

Result<AttachResult> attach(const Fd& console, const MonitorProcess& monitor) {
    const auto set = attach_signals();
    Fd signals(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!signals)
        return fail_errno(errno, "cannot watch signals");
    return Attachment(console.get(), monitor.pidfd.get(), std::move(signals)).run();
}

}  // namespace masu::cli

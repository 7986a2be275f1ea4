// termios, and a state machine of two states.
#include "tools/masu/terminal.hpp"

#include <unistd.h>

#include <csignal>

namespace masu::cli {
namespace {

constexpr char escape = 0x01;  // Ctrl-A

// What a crash handler needs; it cannot be passed one. Written before the handlers are set.
int crash_fd = -1;
termios crash_before;

extern "C" void restore_and_die(int signal) {
    ::tcsetattr(crash_fd, TCSANOW, &crash_before);
    ::raise(signal);  // SA_RESETHAND: the default action now
}

void on_crashes(void (*handler)(int), int flags) {
    struct sigaction action{};
    action.sa_handler = handler;
    action.sa_flags = flags;
    for (const int signal : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL})
        ::sigaction(signal, &action, nullptr);
}

}  // namespace

Result<RawTerminal> RawTerminal::enter(int fd) {
    termios before{};
    if (::tcgetattr(fd, &before) < 0)
        return fail_errno(errno, "cannot read the terminal's settings");
    crash_fd = fd;
    crash_before = before;
    on_crashes(restore_and_die, static_cast<int>(SA_RESETHAND) | SA_NODEFER);
    RawTerminal terminal(fd, before);
    terminal.resume();
    return terminal;
}

RawTerminal::RawTerminal(RawTerminal&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), before_(other.before_) {}

RawTerminal::~RawTerminal() {
    if (fd_ < 0)
        return;
    suspend();
    on_crashes(SIG_DFL, 0);
}

void RawTerminal::suspend() const noexcept {
    // Drains what the guest printed, in the mode it was meant for.
    while (::tcsetattr(fd_, TCSADRAIN, &before_) < 0 && errno == EINTR) {
    }
}

void RawTerminal::resume() const noexcept {
    auto raw = before_;
    ::cfmakeraw(&raw);
    while (::tcsetattr(fd_, TCSADRAIN, &raw) < 0 && errno == EINTR) {
    }
}

bool is_own_terminal(int fd) {
    if (::isatty(fd) == 0)
        return false;
    const auto foreground = ::tcgetpgrp(fd);
    return foreground < 0 || foreground == ::getpgrp();
}

EscapeKeys::Step EscapeKeys::feed(std::string_view typed) {
    Step step;
    for (const char key : typed) {
        ++step.used;
        if (!escaped_) {
            if (key == escape)
                escaped_ = true;
            else
                step.to_guest += key;
            continue;
        }
        escaped_ = false;
        if (key == escape || key == 'a' || key == 'A')
            step.to_guest += escape;
        else if (key == 'x' || key == 'X')
            step.command = EscapeCommand::Quit;
        else if (key == 'd' || key == 'D')
            step.command = EscapeCommand::Detach;
        else
            step.command = EscapeCommand::Help;
        if (step.command)
            break;
    }
    return step;
}

}  // namespace masu::cli

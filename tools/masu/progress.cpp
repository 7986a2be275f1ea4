// Bars, lines and pending signals.
#include "tools/masu/progress.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/bytes.hpp"

namespace masu::cli {
namespace {

constexpr Nanoseconds second = 1'000'000'000;
constexpr Nanoseconds redraw_after = second / 8;
constexpr Nanoseconds line_after = 5 * second;
constexpr std::uint64_t bar_width = 24;

std::size_t terminal_width() {
    winsize size{};
    return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string bar(std::uint64_t done, std::uint64_t total) {
    const auto full = done >= total ? bar_width : done * bar_width / total;
    return "[" + std::string(full, '#') + std::string(bar_width - full, '.') + "]";
}

unsigned percent(std::uint64_t done, std::uint64_t total) {
    return done >= total ? 100
                         : static_cast<unsigned>(static_cast<double>(done) * 100 /
                                                 static_cast<double>(total));
}

void put(const std::string& text) {
    std::fputs(text.c_str(), stderr);
    std::fflush(stderr);
}

}  // namespace

Progress::Progress(std::string subject)
    : subject_(std::move(subject)), terminal_(::isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() {
    clear();
}

void Progress::clear() {
    if (drawn_)
        put("\r\x1b[K");
    drawn_ = false;
}

void Progress::stage(std::string what, std::uint64_t total) {
    what_ = std::move(what);
    total_ = total;
    begun_ = last_ = clock_.now();
    if (terminal_)
        draw(0);
    else
        put(fmt::format("{}: {}{}\n", subject_, what_,
                        total_ == 0 ? "" : " (" + format_size(total_) + ")"));
}

void Progress::update(std::uint64_t done) {
    const auto now = clock_.now();
    if (now - last_ < (terminal_ ? redraw_after : line_after))
        return;
    last_ = now;
    draw(done);
}

void Progress::draw(std::uint64_t done) {
    std::string text = subject_ + ": " + what_;
    if (total_ != 0) {
        const auto spent = static_cast<double>(clock_.now() - begun_) / static_cast<double>(second);
        text += terminal_ ? "  " + bar(done, total_) : "";
        text += fmt::format(" {:>3} %", percent(done, total_));
        if (done > 0 && done < total_ && spent > 1)
            text += fmt::format("  {:.0f} s left", spent / static_cast<double>(done) *
                                                       static_cast<double>(total_ - done));
    }
    if (!terminal_) {
        put(text + "\n");
        return;
    }
    put("\r" + text.substr(0, terminal_width() - 1) + "\x1b[K");
    drawn_ = true;
}

void Progress::line(const std::string& text) {
    clear();
    put(text + "\n");
}

Interruptions::Interruptions() {
    sigemptyset(&held_);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT})
        sigaddset(&held_, signal);
    ::sigprocmask(SIG_BLOCK, &held_, &before_);
}

Interruptions::~Interruptions() {
    ::sigprocmask(SIG_SETMASK, &before_, nullptr);
}

Result<> Interruptions::check() const {
    sigset_t pending;
    if (::sigpending(&pending) == 0)
        for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT})
            if (sigismember(&pending, signal) == 1)
                return fail("interrupted; nothing was kept");
    return {};
}

void Interruptions::let_through() const {
    ::sigprocmask(SIG_SETMASK, &before_, nullptr);
}

}  // namespace masu::cli

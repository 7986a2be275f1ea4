// The log on top of spdlog.
#include "base/log.hpp"

#define SPDLOG_FMT_EXTERNAL
#include <fcntl.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>

#include "base/clock.hpp"
#include "base/fd.hpp"

namespace masu {
namespace {

constexpr std::array<std::string_view, 6> level_names{"trace", "debug", "info",
                                                      "warn",  "error", "off"};

spdlog::level::level_enum to_spdlog(LogLevel level) {
    constexpr std::array map{spdlog::level::trace, spdlog::level::debug, spdlog::level::info,
                             spdlog::level::warn,  spdlog::level::err,   spdlog::level::off};
    return map[static_cast<std::size_t>(level)];
}

// UTC, and by the calendar alone: the C library would read its time zone first.
std::string time_stamp(spdlog::log_clock::time_point time) {
    const auto milliseconds = std::chrono::floor<std::chrono::milliseconds>(time);
    const auto day = std::chrono::floor<std::chrono::days>(milliseconds);
    const std::chrono::year_month_day date(day);
    const std::chrono::hh_mm_ss clock(milliseconds - day);
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", static_cast<int>(date.year()),
                       static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                       clock.hours().count(), clock.minutes().count(), clock.seconds().count(),
                       clock.subseconds().count());
}

// Writes each line with one write(2); a full FIFO loses the line instead of stopping the monitor.
class FdSink final : public spdlog::sinks::base_sink<std::mutex> {
  public:
    FdSink(int fd, Fd owned) : fd_(fd), owned_(std::move(owned)) {}

  private:
    void sink_it_(const spdlog::details::log_msg& message) override {
        const auto line =
            fmt::format("{} {}\n", time_stamp(message.time), std::string_view(message.payload));
        [[maybe_unused]] const auto written = ::write(fd_, line.data(), line.size());
    }
    void flush_() override {}
    int fd_;
    Fd owned_;
};

bool needs_quotes(std::string_view value) {
    return value.empty() || std::ranges::any_of(value, [](unsigned char c) {
               return c <= ' ' || c == '"' || c == '=' || c == '\\' || c == 0x7f;
           });
}

// Values may hold guest bytes: control characters are escaped so that a line stays one line.
void append_value(std::string& line, std::string_view value) {
    if (!needs_quotes(value)) {
        line += value;
        return;
    }
    line += '"';
    for (const unsigned char c : value) {
        if (c == '"' || c == '\\') {
            line += '\\';
            line += static_cast<char>(c);
        } else if (c < ' ' || c == 0x7f) {
            line += fmt::format("\\x{:02x}", c);
        } else {
            line += static_cast<char>(c);
        }
    }
    line += '"';
}

}  // namespace

struct Log::Sink {
    std::shared_ptr<spdlog::logger> logger;
    // Guest-fault limiter: lines written in the window that began at window_start.
    std::atomic<std::uint64_t> window_start{0};
    std::atomic<std::uint32_t> written{0};
    std::atomic<std::uint64_t> held_back{0};

    static std::shared_ptr<Sink> make(int fd, Fd owned, LogLevel level) {
        auto sink = std::make_shared<Sink>();
        sink->logger =
            std::make_shared<spdlog::logger>("", std::make_shared<FdSink>(fd, std::move(owned)));
        sink->logger->set_level(to_spdlog(level));
        return sink;
    }
};

Result<LogLevel> parse_log_level(std::string_view text) {
    std::string lower(text);
    std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return std::tolower(c); });
    if (lower == "warning")
        lower = "warn";
    const auto* found = std::ranges::find(level_names, lower);
    if (found == level_names.end())
        return fail("'{}' is not a log level; use trace, debug, info, warn, error or off", text);
    return static_cast<LogLevel>(found - level_names.begin());
}

std::string_view to_string(LogLevel level) {
    return level_names[static_cast<std::size_t>(level)];
}

Log Log::to_stderr(LogLevel level) {
    Log log;
    log.sink_ = Sink::make(STDERR_FILENO, Fd(), level);
    return log;
}

Result<Log> Log::to_file(const std::string& path, LogLevel level) {
    Fd fd(::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600));
    if (!fd && errno == ENXIO)
        fd.reset(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (!fd)
        return fail_errno(errno, "cannot open log file {}", path);
    Log log;
    const int number = fd.get();
    log.sink_ = Sink::make(number, std::move(fd), level);
    return log;
}

Log Log::with_component(std::string_view component) const {
    Log log = *this;
    log.component_ = component;
    return log;
}

void Log::set_level(LogLevel level) const {
    if (sink_)
        sink_->logger->set_level(to_spdlog(level));
}

bool Log::enabled(LogLevel level) const noexcept {
    return sink_ && sink_->logger->should_log(to_spdlog(level));
}

void Log::write(LogLevel level, std::string_view message, Fields fields) const {
    if (!enabled(level))
        return;
    std::string line = fmt::format("{:<5} ", to_string(level));
    if (!component_.empty())
        line += component_ + ": ";
    line += message;
    for (const auto& field : fields) {
        line += ' ';
        line += field.key;
        line += '=';
        append_value(line, field.value);
    }
    sink_->logger->log(to_spdlog(level), line);
}

void Log::guest_fault(std::string_view message, Fields fields) const {
    if (!enabled(LogLevel::Warn))
        return;
    constexpr std::uint64_t window = 10'000'000'000U;
    constexpr std::uint32_t lines_per_window = 10;
    const auto now = SystemClock().now();
    auto start = sink_->window_start.load(std::memory_order_relaxed);
    if (now - start > window && sink_->window_start.compare_exchange_strong(start, now)) {
        sink_->written.store(0, std::memory_order_relaxed);
        if (const auto held = sink_->held_back.exchange(0, std::memory_order_relaxed); held > 0)
            write(LogLevel::Warn, "guest faults not logged", {kv("count", held)});
    }
    if (sink_->written.fetch_add(1, std::memory_order_relaxed) >= lines_per_window) {
        sink_->written.store(lines_per_window, std::memory_order_relaxed);
        sink_->held_back.fetch_add(1, std::memory_order_relaxed);
        return;
    }
    write(LogLevel::Warn, message, fields);
}

}  // namespace masu

// A structured log: a level, a message, and key=value fields. Passed in; there is no global logger.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "base/result.hpp"

namespace masu {

enum class LogLevel { Trace, Debug, Info, Warn, Error, Off };

// "trace" "debug" "info" "warn"/"warning" "error" "off", in any case.
[[nodiscard]] Result<LogLevel> parse_log_level(std::string_view text);
[[nodiscard]] std::string_view to_string(LogLevel level);

// One key=value of a log line.
struct LogField {
    std::string_view key;
    std::string value;
};

template <class T>
[[nodiscard]] LogField kv(std::string_view key, const T& value) {
    return {key, fmt::format("{}", value)};
}

// A handle on a log sink; copies share the sink. Thread-safe. Lines look like
//   2026-01-01T00:00:00.123Z info  block: disk opened path=/x size=1024
// A default-constructed Log discards everything.
class Log {
  public:
    Log() = default;
    [[nodiscard]] static Log to_stderr(LogLevel level);
    // Appends; the file (or FIFO) is opened non-blocking and created 0600.
    [[nodiscard]] static Result<Log> to_file(const std::string& path, LogLevel level);

    // The same sink with another component name in front of the message.
    [[nodiscard]] Log with_component(std::string_view component) const;
    void set_level(LogLevel level) const;
    [[nodiscard]] bool enabled(LogLevel level) const noexcept;

    using Fields = std::initializer_list<LogField>;
    void debug(std::string_view message, Fields fields = {}) const {
        write(LogLevel::Debug, message, fields);
    }
    void info(std::string_view message, Fields fields = {}) const {
        write(LogLevel::Info, message, fields);
    }
    void warn(std::string_view message, Fields fields = {}) const {
        write(LogLevel::Warn, message, fields);
    }
    void error(std::string_view message, Fields fields = {}) const {
        write(LogLevel::Error, message, fields);
    }
    void write(LogLevel level, std::string_view message, Fields fields) const;

    // For what a guest can cause at will: warns at most 10 times in 10 s over all guest faults of
    // this sink, then says how many lines were held back. Cheap when held back.
    void guest_fault(std::string_view message, Fields fields = {}) const;

  private:
    struct Sink;
    std::shared_ptr<Sink> sink_;
    std::string component_;
};

}  // namespace masu

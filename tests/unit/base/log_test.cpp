// The log: levels, one line per message whatever the guest put in it, and the fault limiter.
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>

#include "base/atomic_file.hpp"
#include "base/log.hpp"

using namespace masu;

namespace {
struct LogFile {
    char path[32] = "/tmp/masu-log-XXXXXX";
    LogFile() { ::close(::mkstemp(path)); }
    ~LogFile() { ::unlink(path); }
    [[nodiscard]] std::string text() const { return *read_file(path, 1 << 20); }
};
}  // namespace

TEST_CASE("a line carries level, component and quoted fields") {
    const LogFile file;
    const auto log = *Log::to_file(file.path, LogLevel::Info);
    log.debug("not seen");
    log.with_component("block").warn("odd", {kv("n", 3), kv("text", "a b\n\"c\"")});
    const auto text = file.text();
    CHECK(text.find("not seen") == std::string::npos);
    CHECK(text.find("warn  block: odd n=3 text=\"a b\\x0a\\\"c\\\"\"\n") != std::string::npos);
    CHECK(std::ranges::count(text, '\n') == 1);
}

TEST_CASE("a guest cannot flood the log") {
    const LogFile file;
    const auto log = *Log::to_file(file.path, LogLevel::Info);
    for (int i = 0; i < 10'000; ++i)
        log.guest_fault("bad descriptor");
    CHECK(std::ranges::count(file.text(), '\n') == 10);
}

TEST_CASE("levels parse in any case") {
    CHECK(*parse_log_level("WARNING") == LogLevel::Warn);
    CHECK_FALSE(parse_log_level("loud").has_value());
}

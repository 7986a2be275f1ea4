// Counters, by group and name. Passed to whoever counts; there is no global registry.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace masu {

// One monotonic counter. Any thread may add; the order of counts between counters is not kept.
class Counter {
  public:
    void add(std::uint64_t n = 1) noexcept { value_.fetch_add(n, std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t value() const noexcept {
        return value_.load(std::memory_order_relaxed);
    }

  private:
    std::atomic<std::uint64_t> value_{0};
};

// Owns the counters of one monitor. counter() may be called at set-up from any thread; the
// reference stays valid for the life of the Metrics, and the same names give the same counter
// (so a device that is rebuilt at guest reboot counts on).
class Metrics {
  public:
    struct Sample {
        std::string group;  // "block_rootfs", "vcpu", "uart"
        std::string name;   // "read_bytes"
        std::uint64_t value;
    };

    Counter& counter(std::string_view group, std::string_view name);
    [[nodiscard]] std::vector<Sample> samples() const;  // in order of creation

  private:
    struct Entry {
        std::string group;
        std::string name;
        Counter counter;
    };
    mutable std::mutex mutex_;
    std::deque<Entry> entries_;  // deque: references stay valid
};

}  // namespace masu

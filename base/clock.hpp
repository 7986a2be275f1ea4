// Time is passed in: what needs "now" takes a Clock, so that tests drive it.
#pragma once

#include <cstdint>

namespace masu {

using Nanoseconds = std::uint64_t;

class Clock {
  public:
    virtual ~Clock() = default;
    // Monotonic nanoseconds since an arbitrary start.
    [[nodiscard]] virtual Nanoseconds now() const noexcept = 0;
    // Nanoseconds since 1970-01-01 UTC.
    [[nodiscard]] virtual std::uint64_t wall() const noexcept = 0;
};

// CLOCK_MONOTONIC and CLOCK_REALTIME. Thread-safe.
class SystemClock final : public Clock {
  public:
    [[nodiscard]] Nanoseconds now() const noexcept override;
    [[nodiscard]] std::uint64_t wall() const noexcept override;
};

}  // namespace masu

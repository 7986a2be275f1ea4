// The system's clocks.
#include "base/clock.hpp"

#include <ctime>

namespace masu {
namespace {
std::uint64_t read(clockid_t id) noexcept {
    timespec time{};
    ::clock_gettime(id, &time);
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000U +
           static_cast<std::uint64_t>(time.tv_nsec);
}
}  // namespace

Nanoseconds SystemClock::now() const noexcept {
    return read(CLOCK_MONOTONIC);
}
std::uint64_t SystemClock::wall() const noexcept {
    return read(CLOCK_REALTIME);
}

}  // namespace masu

#include "firmware/platform/clock.hpp"

#include "firmware/platform/cpu.hpp"

namespace masu::firmware::clock {
namespace {
// Where the monitor cannot tell the frequency, waits are too short or too long, but they end.
constexpr std::uint64_t assumed_khz = 2'000'000;
constinit std::uint64_t start = 0;
constinit std::uint64_t khz = assumed_khz;
}  // namespace

void init(std::uint64_t tsc_khz) noexcept {
    start = cpu::read_tsc();
    khz = tsc_khz == 0 ? assumed_khz : tsc_khz;
}

std::uint64_t now() noexcept {
    const std::uint64_t ticks = cpu::read_tsc() - start;
    return ticks / khz * 10'000 + ticks % khz * 10'000 / khz;
}

void stall(std::uint64_t microseconds) noexcept {
    constexpr std::uint64_t longest = ~std::uint64_t{0} / per_microsecond / 2;
    const std::uint64_t end =
        now() + (microseconds < longest ? microseconds : longest) * per_microsecond;
    while (now() < end)
        cpu::pause();
}

}  // namespace masu::firmware::clock

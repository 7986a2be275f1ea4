// Time since the firmware's entry, by the TSC.
#pragma once

#include <cstdint>

namespace masu::firmware::clock {

void init(std::uint64_t tsc_khz) noexcept;
// In units of 100 ns, as UEFI's timers count.
[[nodiscard]] std::uint64_t now() noexcept;
inline constexpr std::uint64_t per_microsecond = 10;
inline constexpr std::uint64_t per_second = 10'000'000;
void stall(std::uint64_t microseconds) noexcept;

}  // namespace masu::firmware::clock

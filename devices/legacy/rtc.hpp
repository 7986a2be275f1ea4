// The MC146818 real-time clock and its CMOS memory.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

#include "base/clock.hpp"
#include "devices/legacy/byte_device.hpp"

namespace masu::legacy {

inline constexpr std::size_t cmos_size = 128;

struct RtcState {
    std::uint8_t index = 0;
    std::int64_t offset_seconds = 0;               // what the guest set, against the wall clock
    std::array<std::uint8_t, cmos_size> memory{};  // time registers count only while SET halts them
};

// Index port at offset 0 (bit 7, the NMI mask, is ignored) and data port at 1. Time is UTC from the
// Clock; the guest may set it, for itself only. BCD or binary and 24 or 12 hours follow status
// register B. No interrupts, and no update in progress ever: reads are consistent to the second.
// Thread-safe.
class Rtc final : public ByteDevice {
  public:
    static constexpr std::uint64_t port_count = 2;

    explicit Rtc(const Clock& clock);

    [[nodiscard]] RtcState save() const;
    void restore(const RtcState& state);

  private:
    std::uint8_t read_register(std::uint64_t offset) override;
    void write_register(std::uint64_t offset, std::uint8_t value) override;

    // With mutex_ held.
    [[nodiscard]] std::uint8_t read_cmos(std::uint8_t index);
    void write_cmos(std::uint8_t index, std::uint8_t value);
    void write_status_b(std::uint8_t value);
    void copy_time_to_memory();    // now -> time registers
    void take_time_from_memory();  // time registers -> offset_seconds
    [[nodiscard]] std::int64_t host_seconds() const;

    const Clock& clock_;
    mutable std::mutex mutex_;
    RtcState state_;
};

}  // namespace masu::legacy

// The sleep and reset registers of a hardware-reduced ACPI machine.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "devices/legacy/byte_device.hpp"

namespace masu::legacy {

// ACPI 6.5, 4.8.3.7: SLEEP_CONTROL at offset 0 and SLEEP_STATUS at 1; the FADT's RESET_REG at 2.
class AcpiPower final : public ByteDevice {
  public:
    static constexpr std::uint64_t port_count = 3;
    static constexpr std::uint8_t sleep_type_s5 = 5;  // SLP_TYP of S5, as \_S5 names it

    // Both are called on the vCPU thread that wrote, each time the guest asks; the vCPU should not
    // enter the guest again. `reset_value` is the FADT's RESET_VALUE.
    AcpiPower(std::uint8_t reset_value, std::function<void()> power_off,
              std::function<void()> reset)
        : reset_value_(reset_value), power_off_(std::move(power_off)), reset_(std::move(reset)) {}

    [[nodiscard]] std::uint8_t save() const { return sleep_control_.load(); }
    void restore(std::uint8_t sleep_control) { sleep_control_ = sleep_control; }

  private:
    std::uint8_t read_register(std::uint64_t offset) override;
    void write_register(std::uint64_t offset, std::uint8_t value) override;

    const std::uint8_t reset_value_;
    std::function<void()> power_off_;
    std::function<void()> reset_;
    std::atomic<std::uint8_t> sleep_control_{0};  // SLP_TYP only: SLP_EN reads as zero
};

}  // namespace masu::legacy

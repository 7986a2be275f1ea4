#include "devices/legacy/acpi_power.hpp"

namespace masu::legacy {
namespace {

enum Register : std::uint64_t { SleepControl = 0, SleepStatus = 1, Reset = 2 };

constexpr unsigned sleep_type_shift = 2;
constexpr std::uint8_t sleep_type_mask = 0x7 << sleep_type_shift;
constexpr std::uint8_t sleep_enable = 1 << 5;

}  // namespace

std::uint8_t AcpiPower::read_register(std::uint64_t offset) {
    // SLEEP_STATUS: the machine never wakes from S1-S4, which it does not have.
    return offset == SleepControl ? sleep_control_.load() : std::uint8_t{0};
}

void AcpiPower::write_register(std::uint64_t offset, std::uint8_t value) {
    if (offset == SleepControl) {
        sleep_control_ = value & sleep_type_mask;
        const bool s5 = (value & sleep_type_mask) >> sleep_type_shift == sleep_type_s5;
        if ((value & sleep_enable) != 0 && s5)
            power_off_();
    } else if (offset == Reset && value == reset_value_) {
        reset_();
    }
}

}  // namespace masu::legacy

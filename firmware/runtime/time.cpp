// GetTime and SetTime from the machine's MC146818 clock.
#include "firmware/platform/cpu.hpp"
#include "firmware/runtime/runtime.hpp"

namespace masu::firmware {

using efi::Status;
using efi::Time;

namespace {

enum Register : std::uint8_t {
    Seconds = 0x00,
    Minutes = 0x02,
    Hours = 0x04,
    Day = 0x07,
    Month = 0x08,
    Year = 0x09,
    StatusA = 0x0a,
    StatusB = 0x0b,
    Century = 0x32,
};
constexpr std::uint8_t update_in_progress = 0x80;
constexpr std::uint8_t halt_updates = 0x80;
constexpr std::uint8_t binary = 0x04;
constexpr std::uint8_t hours_24 = 0x02;

constinit std::uint16_t port = 0x70;
// What SetTime was told: the clock itself keeps UTC's fields only.
constinit std::int16_t time_zone = efi::unspecified_time_zone;
constinit std::uint8_t daylight = 0;

std::uint8_t read(std::uint8_t index) noexcept {
    cpu::out8(port, index);
    return cpu::in8(static_cast<std::uint16_t>(port + 1));
}

void write(std::uint8_t index, std::uint8_t value) noexcept {
    cpu::out8(port, index);
    cpu::out8(static_cast<std::uint16_t>(port + 1), value);
}

unsigned decode(std::uint8_t value, std::uint8_t mode) noexcept {
    return (mode & binary) != 0 ? value : (value >> 4) * 10U + (value & 0xf);
}

std::uint8_t encode(unsigned value, std::uint8_t mode) noexcept {
    return static_cast<std::uint8_t>((mode & binary) != 0 ? value
                                                          : value / 10 * 16 + value % 10);
}

Time read_once() noexcept {
    const auto mode = read(StatusB);
    Time time{};
    time.second = static_cast<std::uint8_t>(decode(read(Seconds), mode));
    time.minute = static_cast<std::uint8_t>(decode(read(Minutes), mode));
    const auto hour = read(Hours);
    time.hour = static_cast<std::uint8_t>(decode(hour & 0x7f, mode));
    if ((mode & hours_24) == 0)
        time.hour = static_cast<std::uint8_t>(time.hour % 12 + ((hour & 0x80) != 0 ? 12 : 0));
    time.day = static_cast<std::uint8_t>(decode(read(Day), mode));
    time.month = static_cast<std::uint8_t>(decode(read(Month), mode));
    time.year = static_cast<std::uint16_t>(decode(read(Century), mode) * 100 +
                                           decode(read(Year), mode));
    time.time_zone = time_zone;
    time.daylight = daylight;
    return time;
}

bool is_valid(const Time& time) noexcept {
    constexpr std::uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (time.year < 1900 || time.year > 9999 || time.month < 1 || time.month > 12)
        return false;
    const bool leap = time.year % 4 == 0 && (time.year % 100 != 0 || time.year % 400 == 0);
    const unsigned last = days[time.month - 1] + (time.month == 2 && leap ? 1U : 0U);
    const bool zone = time.time_zone == efi::unspecified_time_zone ||
                      (time.time_zone >= -1440 && time.time_zone <= 1440);
    return time.day >= 1 && time.day <= last && time.hour < 24 && time.minute < 60 &&
           time.second < 60 && time.nanosecond < 1'000'000'000 && zone;
}

Status EFIAPI efi_get_time(Time* time, efi::TimeCapabilities* capabilities) {
    if (time == nullptr)
        return Status::InvalidParameter;
    // A second may end between two registers: the same answer twice is a whole one.
    constexpr int tries = 8;
    Time last = read_once();
    for (int i = 0; i < tries; ++i) {
        const Time now = read_once();
        const bool same = std::memcmp(&now, &last, sizeof now) == 0;
        last = now;
        if (same && (read(StatusA) & update_in_progress) == 0)
            break;
    }
    if (!is_valid(last))
        return Status::DeviceError;
    *time = last;
    if (capabilities != nullptr)
        *capabilities = {.resolution = 1, .accuracy = 50'000'000, .sets_to_zero = 1};
    return Status::Success;
}

Status EFIAPI efi_set_time(Time* time) {
    if (time == nullptr || !is_valid(*time))
        return Status::InvalidParameter;
    const auto mode = read(StatusB);
    write(StatusB, mode | halt_updates | hours_24);
    write(Seconds, encode(time->second, mode));
    write(Minutes, encode(time->minute, mode));
    write(Hours, encode(time->hour, mode));
    write(Day, encode(time->day, mode));
    write(Month, encode(time->month, mode));
    write(Year, encode(time->year % 100U, mode));
    write(Century, encode(time->year / 100U, mode));
    write(StatusB, static_cast<std::uint8_t>((mode | hours_24) & ~halt_updates));
    time_zone = time->time_zone;
    daylight = time->daylight;
    return Status::Success;
}

Status EFIAPI efi_get_wakeup_time(efi::Bool*, efi::Bool*, Time*) {
    return Status::Unsupported;
}

Status EFIAPI efi_set_wakeup_time(efi::Bool, Time*) {
    return Status::Unsupported;
}

}  // namespace

void init_time(std::uint16_t rtc_port) noexcept {
    port = rtc_port;
}

void fill_time_services(efi::RuntimeServices& table) noexcept {
    table.get_time = efi_get_time;
    table.set_time = efi_set_time;
    table.get_wakeup_time = efi_get_wakeup_time;
    table.set_wakeup_time = efi_set_wakeup_time;
}

}  // namespace masu::firmware

#include "devices/legacy/rtc.hpp"

#include <ctime>

namespace masu::legacy {
namespace {

// MC146818 registers; the century is where PCs keep it (named by the FADT).
enum Register : std::uint8_t {
    Seconds = 0x00,
    Minutes = 0x02,
    Hours = 0x04,
    DayOfWeek = 0x06,  // 1 = Sunday
    DayOfMonth = 0x07,
    Month = 0x08,
    Year = 0x09,
    StatusA = 0x0a,
    StatusB = 0x0b,
    StatusC = 0x0c,
    StatusD = 0x0d,
    Century = 0x32,
};

constexpr std::uint8_t index_mask = 0x7f;
constexpr std::uint8_t a_default = 0x26;  // 32.768 kHz, 1024 Hz
constexpr std::uint8_t a_update_in_progress = 0x80;
constexpr std::uint8_t b_set = 0x80;
constexpr std::uint8_t b_binary = 0x04;
constexpr std::uint8_t b_24_hours = 0x02;
constexpr std::uint8_t d_valid = 0x80;
constexpr std::uint8_t hours_pm = 0x80;

constexpr std::uint64_t nanoseconds_a_second = 1'000'000'000;

bool is_time_register(std::uint8_t index) {
    return index == Seconds || index == Minutes || index == Hours ||
           (index >= DayOfWeek && index <= Year) || index == Century;
}

std::uint8_t encode(int value, std::uint8_t status_b) {
    const int coded = (status_b & b_binary) != 0 ? value : value / 10 * 16 + value % 10;
    return static_cast<std::uint8_t>(coded);
}

// Whatever the guest wrote: at most 165 for nonsense digits, never negative.
int decode(std::uint8_t value, std::uint8_t status_b) {
    return (status_b & b_binary) != 0 ? value : (value >> 4) * 10 + (value & 0xf);
}

std::uint8_t encode_hour(int hour, std::uint8_t status_b) {
    if ((status_b & b_24_hours) != 0)
        return encode(hour, status_b);
    const int twelve = hour % 12 == 0 ? 12 : hour % 12;
    return encode(twelve, status_b) | (hour >= 12 ? hours_pm : std::uint8_t{0});
}

int decode_hour(std::uint8_t value, std::uint8_t status_b) {
    if ((status_b & b_24_hours) != 0)
        return decode(value, status_b);
    const int twelve = decode(value & static_cast<std::uint8_t>(~hours_pm), status_b) % 12;
    return twelve + ((value & hours_pm) != 0 ? 12 : 0);
}

}  // namespace

Rtc::Rtc(const Clock& clock) : clock_(clock) {
    state_.memory[StatusA] = a_default;
    state_.memory[StatusB] = b_24_hours;
    state_.memory[StatusD] = d_valid;
}

std::int64_t Rtc::host_seconds() const {
    return static_cast<std::int64_t>(clock_.wall() / nanoseconds_a_second);
}

std::uint8_t Rtc::read_register(std::uint64_t offset) {
    const std::lock_guard lock(mutex_);
    // The index port is write-only.
    return offset == 1 ? read_cmos(state_.index) : std::uint8_t{0xff};
}

void Rtc::write_register(std::uint64_t offset, std::uint8_t value) {
    const std::lock_guard lock(mutex_);
    if (offset == 0)
        state_.index = value & index_mask;
    else
        write_cmos(state_.index, value);
}

std::uint8_t Rtc::read_cmos(std::uint8_t index) {
    const bool halted = (state_.memory[StatusB] & b_set) != 0;
    if (is_time_register(index) && !halted)
        copy_time_to_memory();
    return state_.memory[index];
}

void Rtc::write_cmos(std::uint8_t index, std::uint8_t value) {
    if (index == StatusC || index == StatusD)
        return;
    if (index == StatusA) {
        state_.memory[StatusA] = value & static_cast<std::uint8_t>(~a_update_in_progress);
        return;
    }
    if (index == StatusB) {
        write_status_b(value);
        return;
    }
    const bool sets_time = is_time_register(index) && (state_.memory[StatusB] & b_set) == 0;
    if (sets_time)
        copy_time_to_memory();
    state_.memory[index] = value;
    if (sets_time)
        take_time_from_memory();
}

void Rtc::write_status_b(std::uint8_t value) {
    const auto old = state_.memory[StatusB];
    if ((~old & value & b_set) != 0)
        copy_time_to_memory();
    state_.memory[StatusB] = value;
    if ((old & ~value & b_set) != 0)
        take_time_from_memory();
}

void Rtc::copy_time_to_memory() {
    const std::time_t now = host_seconds() + state_.offset_seconds;
    std::tm parts{};
    if (::gmtime_r(&now, &parts) == nullptr)
        return;
    auto& memory = state_.memory;
    const auto b = memory[StatusB];
    const int year = parts.tm_year + 1900;
    memory[Seconds] = encode(parts.tm_sec, b);
    memory[Minutes] = encode(parts.tm_min, b);
    memory[Hours] = encode_hour(parts.tm_hour, b);
    memory[DayOfWeek] = encode(parts.tm_wday + 1, b);
    memory[DayOfMonth] = encode(parts.tm_mday, b);
    memory[Month] = encode(parts.tm_mon + 1, b);
    memory[Year] = encode(year % 100, b);
    memory[Century] = encode(year / 100 % 100, b);
}

void Rtc::take_time_from_memory() {
    const auto& memory = state_.memory;
    const auto b = memory[StatusB];
    std::tm parts{};
    parts.tm_sec = decode(memory[Seconds], b);
    parts.tm_min = decode(memory[Minutes], b);
    parts.tm_hour = decode_hour(memory[Hours], b);
    parts.tm_mday = decode(memory[DayOfMonth], b);
    parts.tm_mon = decode(memory[Month], b) - 1;
    parts.tm_year = decode(memory[Century], b) * 100 + decode(memory[Year], b) - 1900;
    // Dates that do not exist carry over, as timegm() does it.
    state_.offset_seconds = ::timegm(&parts) - host_seconds();
}

RtcState Rtc::save() const {
    const std::lock_guard lock(mutex_);
    return state_;
}

void Rtc::restore(const RtcState& state) {
    const std::lock_guard lock(mutex_);
    state_ = state;
    state_.index &= index_mask;
}

}  // namespace masu::legacy

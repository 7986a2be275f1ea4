// Integers out of bytes that somebody else wrote.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace masu::firmware {

// The little-endian T at `offset`. What lies outside the span reads as zero: no length on a disk,
// however wrong, makes these functions look elsewhere.
template <class T>
    requires std::is_trivially_copyable_v<T>
[[nodiscard]] inline T load_le(std::span<const std::byte> from, std::size_t offset) noexcept {
    T value{};
    if (offset <= from.size() && from.size() - offset >= sizeof value)
        std::memcpy(&value, from.data() + offset, sizeof value);
    return value;
}

template <class T>
    requires std::is_integral_v<T>
[[nodiscard]] inline T load_be(std::span<const std::byte> from, std::size_t offset) noexcept {
    T value = load_le<T>(from, offset);
    if constexpr (sizeof value == 2)
        value = static_cast<T>(__builtin_bswap16(static_cast<std::uint16_t>(value)));
    else if constexpr (sizeof value == 4)
        value = static_cast<T>(__builtin_bswap32(static_cast<std::uint32_t>(value)));
    else if constexpr (sizeof value == 8)
        value = static_cast<T>(__builtin_bswap64(static_cast<std::uint64_t>(value)));
    return value;
}

[[nodiscard]] constexpr bool is_power_of_two(std::uint64_t value) noexcept {
    return value != 0 && (value & (value - 1)) == 0;
}

// from.subspan() cut to what is there; empty when the start is outside.
[[nodiscard]] inline std::span<const std::byte> slice(std::span<const std::byte> from,
                                                      std::size_t offset,
                                                      std::size_t size) noexcept {
    if (offset >= from.size())
        return {};
    const std::size_t rest = from.size() - offset;
    return {from.data() + offset, size < rest ? size : rest};
}

}  // namespace masu::firmware

// Byte-level basics: unaligned little-endian access, alignment, and sizes as people write them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/result.hpp"

namespace masu {

inline constexpr std::uint64_t KiB = 1024;
inline constexpr std::uint64_t MiB = 1024 * KiB;
inline constexpr std::uint64_t GiB = 1024 * MiB;

// The T that starts at `from`; the host and every guest are little-endian (x86-64).
// The caller has checked that sizeof(T) bytes are there.
template <class T>
    requires std::is_trivially_copyable_v<T>
[[nodiscard]] T load_unaligned(const std::byte* from) noexcept {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <class T>
    requires std::is_trivially_copyable_v<T>
void store_unaligned(std::byte* to, const T& value) noexcept {
    std::memcpy(to, &value, sizeof value);
}

// The bytes of a trivially copyable value.
template <class T>
    requires std::is_trivially_copyable_v<T>
[[nodiscard]] std::span<const std::byte> as_bytes_of(const T& value) noexcept {
    return std::as_bytes(std::span(&value, 1));
}

// `alignment` is a power of two; align_up does not check for overflow.
[[nodiscard]] constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t alignment) {
    return (value + alignment - 1) & ~(alignment - 1);
}
[[nodiscard]] constexpr std::uint64_t align_down(std::uint64_t value, std::uint64_t alignment) {
    return value & ~(alignment - 1);
}
[[nodiscard]] constexpr bool is_aligned(std::uint64_t value, std::uint64_t alignment) {
    return (value & (alignment - 1)) == 0;
}

// "512M", "1.5G", "4096": bytes; suffixes K M G T (also KiB, KB, ...) are powers of 1024.
[[nodiscard]] Result<std::uint64_t> parse_size(std::string_view text);

// 1536 MiB -> "1.5 GiB"; whole numbers carry no fraction.
[[nodiscard]] std::string format_size(std::uint64_t bytes);

}  // namespace masu

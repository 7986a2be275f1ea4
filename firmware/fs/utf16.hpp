// UTF-16 as disks hold it, into UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "firmware/bytes.hpp"

namespace masu::firmware {

// Appends one code point if it fits whole; the bytes used, 0 if it does not fit.
[[nodiscard]] inline std::size_t put_utf8(std::uint32_t point, std::span<char> to) noexcept {
    const auto put = [&](std::size_t i, std::uint32_t byte) { to[i] = static_cast<char>(byte); };
    const std::size_t size = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    if (size > to.size())
        return 0;
    constexpr std::uint32_t first_byte[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (std::size_t i = size; i-- > 1; point >>= 6)
        put(i, 0x80 | (point & 0x3f));
    put(0, first_byte[size] | point);
    return size;
}

// Up to the first NUL or the end of either; lone surrogates become U+FFFD. The bytes written.
inline std::size_t utf16_to_utf8(std::span<const std::byte> from, std::span<char> to) noexcept {
    std::size_t used = 0;
    for (std::size_t at = 0; at + 1 < from.size(); at += 2) {
        std::uint32_t point = load_le<std::uint16_t>(from, at);
        if (point == 0)
            break;
        if (point >= 0xd800 && point < 0xe000) {
            const std::uint32_t low = load_le<std::uint16_t>(from, at + 2);
            const bool pair = point < 0xdc00 && low >= 0xdc00 && low < 0xe000;
            point = pair ? 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00) : 0xfffd;
            at += pair ? 2 : 0;
        }
        const std::size_t size = put_utf8(point, to.subspan(used));
        if (size == 0)
            break;
        used += size;
    }
    return used;
}

}  // namespace masu::firmware

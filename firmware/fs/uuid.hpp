// A file system's identity as text, the way blkid and GRUB write it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace masu::firmware {

using UuidText = std::array<char, 36>;

// 16 bytes in the order they are printed (unlike a GPT's GUID).
[[nodiscard]] constexpr UuidText uuid_text(std::span<const std::byte, 16> bytes) noexcept {
    UuidText text{};
    std::size_t at = 0;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            text[at++] = '-';
        text[at++] = "0123456789abcdef"[std::to_integer<unsigned>(bytes[i]) >> 4];
        text[at++] = "0123456789abcdef"[std::to_integer<unsigned>(bytes[i]) & 15];
    }
    return text;
}

// A fixed-size name, cut at its first NUL.
[[nodiscard]] inline std::string_view fixed_text(std::span<const char> bytes) noexcept {
    std::size_t size = 0;
    while (size < bytes.size() && bytes[size] != '\0')
        ++size;
    return {bytes.data(), size};
}

}  // namespace masu::firmware

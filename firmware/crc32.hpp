// CRC-32 as GPT uses it (IEEE 802.3, reflected).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace masu::firmware {

// The checksum of `bytes` continued from `previous` (0 at the start).
[[nodiscard]] constexpr std::uint32_t crc32(std::span<const std::byte> bytes,
                                            std::uint32_t previous = 0) noexcept {
    constexpr auto table = [] {
        std::array<std::uint32_t, 16> made{};
        for (std::uint32_t i = 0; i < made.size(); ++i) {
            std::uint32_t value = i;
            for (int bit = 0; bit < 4; ++bit)
                value = (value >> 1) ^ ((value & 1) != 0 ? 0xedb8'8320U : 0U);
            made[i] = value;
        }
        return made;
    }();
    std::uint32_t crc = ~previous;
    for (const std::byte byte : bytes) {
        crc ^= static_cast<std::uint32_t>(byte);
        crc = table[crc & 15] ^ (crc >> 4);
        crc = table[crc & 15] ^ (crc >> 4);
    }
    return ~crc;
}

}  // namespace masu::firmware

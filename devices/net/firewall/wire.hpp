// Big-endian fields of a packet, each read checked against the bytes at hand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "devices/net/firewall/address.hpp"

namespace masu::net {

// Unchecked: the caller knows that the bytes are there.
[[nodiscard]] inline std::uint8_t get8(const std::byte* at) noexcept {
    return static_cast<std::uint8_t>(*at);
}
[[nodiscard]] inline std::uint16_t get16(const std::byte* at) noexcept {
    std::uint16_t value;
    std::memcpy(&value, at, sizeof value);
    return __builtin_bswap16(value);
}
[[nodiscard]] inline std::uint32_t get32(const std::byte* at) noexcept {
    std::uint32_t value;
    std::memcpy(&value, at, sizeof value);
    return __builtin_bswap32(value);
}
[[nodiscard]] inline std::uint64_t get64(const std::byte* at) noexcept {
    std::uint64_t value;
    std::memcpy(&value, at, sizeof value);
    return __builtin_bswap64(value);
}
[[nodiscard]] inline Address get_address4(const std::byte* at) noexcept {
    return Address::v4(get32(at));
}
[[nodiscard]] inline Address get_address6(const std::byte* at) noexcept {
    return Address::v6(get64(at), get64(at + 8));
}
[[nodiscard]] inline MacAddress get_mac(const std::byte* at) noexcept {
    MacAddress mac;
    std::memcpy(mac.data(), at, mac.size());
    return mac;
}

inline void put8(std::byte* at, std::uint8_t value) noexcept {
    *at = static_cast<std::byte>(value);
}
inline void put16(std::byte* at, std::uint16_t value) noexcept {
    value = __builtin_bswap16(value);
    std::memcpy(at, &value, sizeof value);
}
inline void put32(std::byte* at, std::uint32_t value) noexcept {
    value = __builtin_bswap32(value);
    std::memcpy(at, &value, sizeof value);
}

}  // namespace masu::net

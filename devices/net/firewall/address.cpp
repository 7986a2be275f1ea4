// Addresses as text, and prefixes.
#include "devices/net/firewall/address.hpp"

#include <arpa/inet.h>

#include <bit>
#include <charconv>
#include <cstring>

namespace masu::net {
namespace {

std::uint64_t mask64(unsigned leading) noexcept {
    return leading == 0 ? 0 : leading >= 64 ? ~std::uint64_t{0} : ~(~std::uint64_t{0} >> leading);
}

// Of an IPv6 prefix; an IPv4 length counts from bit 32 of the low half.
struct Mask {
    std::uint64_t high;
    std::uint64_t low;
};
Mask mask_of(Family family, unsigned length) noexcept {
    if (family == Family::V4)
        return {0, length >= 32 ? 0xffff'ffffU : 0xffff'ffffU & ~(0xffff'ffffU >> length)};
    return {mask64(length), length <= 64 ? 0 : mask64(length - 64)};
}

}  // namespace

bool Address::is_multicast() const noexcept {
    return family == Family::V4 ? (low >> 28) == 0xe : (high >> 56) == 0xff;
}

bool Address::is_link_local_v6() const noexcept {
    return family == Family::V6 && (high >> 54) == 0x3fa;
}

Prefix Prefix::canonical(Address address, unsigned length) noexcept {
    const auto mask = mask_of(address.family, length);
    address.high &= mask.high;
    address.low &= mask.low;
    return {address, static_cast<std::uint8_t>(length)};
}

bool Prefix::contains(const Address& other) const noexcept {
    if (other.family != address.family)
        return false;
    const auto mask = mask_of(address.family, length);
    return (other.high & mask.high) == address.high && (other.low & mask.low) == address.low;
}

Address Prefix::last() const noexcept {
    const auto mask = mask_of(address.family, length);
    if (address.family == Family::V4)
        return Address::v4(static_cast<std::uint32_t>(address.low | (~mask.low & 0xffff'ffffU)));
    return Address::v6(address.high | ~mask.high, address.low | ~mask.low);
}

Result<Address> parse_address(std::string_view text) {
    const std::string copy(text);
    std::uint8_t bytes[16];
    if (::inet_pton(AF_INET, copy.c_str(), bytes) == 1) {
        std::uint32_t bits;
        std::memcpy(&bits, bytes, sizeof bits);
        return Address::v4(ntohl(bits));
    }
    if (::inet_pton(AF_INET6, copy.c_str(), bytes) == 1) {
        std::uint64_t halves[2];
        std::memcpy(halves, bytes, sizeof halves);
        return Address::v6(__builtin_bswap64(halves[0]), __builtin_bswap64(halves[1]));
    }
    return fail("\"{}\" is no IPv4 or IPv6 address", text);
}

Result<Prefix> parse_cidr(std::string_view text) {
    const auto slash = text.find('/');
    if (slash == std::string_view::npos)
        return fail("\"{}\" has no prefix length; write {}/32 or the like", text, text);
    const auto address = parse_address(text.substr(0, slash));
    const auto digits = text.substr(slash + 1);
    unsigned length = 0;
    const auto [end, error] = std::from_chars(digits.begin(), digits.end(), length);
    if (!address || error != std::errc{} || end != digits.end() || length > address->width())
        return fail("\"{}\" is no CIDR block such as 192.0.2.0/24 or 2001:db8::/32", text);
    return Prefix::canonical(*address, length);
}

Result<MacAddress> parse_mac(std::string_view text) {
    MacAddress mac{};
    bool good = text.size() == 17;
    for (std::size_t i = 0; good && i < mac.size(); ++i) {
        const auto part = text.substr(3 * i, 2);
        const auto [end, error] = std::from_chars(part.begin(), part.end(), mac[i], 16);
        good = error == std::errc{} && end == part.end() && (i == 5 || text[3 * i + 2] == ':');
    }
    if (!good)
        return fail("\"{}\" is no MAC address such as 06:00:ac:10:00:02", text);
    return mac;
}

std::string to_string(const Address& address) {
    char text[INET6_ADDRSTRLEN] = "";
    if (address.family == Family::V4) {
        const std::uint32_t bits = htonl(static_cast<std::uint32_t>(address.low));
        ::inet_ntop(AF_INET, &bits, text, sizeof text);
    } else {
        const std::uint64_t halves[2]{__builtin_bswap64(address.high),
                                      __builtin_bswap64(address.low)};
        ::inet_ntop(AF_INET6, halves, text, sizeof text);
    }
    return text;
}

std::string to_string(const Prefix& prefix) {
    return fmt::format("{}/{}", to_string(prefix.address), prefix.length);
}

std::string to_string(const MacAddress& mac) {
    return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", mac[0], mac[1], mac[2], mac[3],
                       mac[4], mac[5]);
}

Address link_local_of(const MacAddress& mac) noexcept {
    std::uint64_t id = 0;
    for (const auto byte : {static_cast<std::uint8_t>(mac[0] ^ 2), mac[1], mac[2],
                            std::uint8_t{0xff}, std::uint8_t{0xfe}, mac[3], mac[4], mac[5]})
        id = id << 8 | byte;
    return Address::v6(0xfe80'0000'0000'0000U, id);
}

}  // namespace masu::net

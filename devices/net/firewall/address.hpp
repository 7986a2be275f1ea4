// Link and network addresses as the firewall compares them: by value, in host byte order.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace masu::net {

using MacAddress = std::array<std::uint8_t, 6>;

enum class Family : std::uint8_t { V4, V6 };

// The 128 bits of an IPv6 address, the first byte on the wire being the highest of `high`. Of an
// IPv4 address, the low 32 bits of `low`; all else is 0. The family always takes part in a
// comparison, so no IPv6 address equals an IPv4 one.
struct Address {
    Family family = Family::V4;
    std::uint64_t high = 0;
    std::uint64_t low = 0;

    [[nodiscard]] static constexpr Address v4(std::uint32_t bits) noexcept {
        return {Family::V4, 0, bits};
    }
    [[nodiscard]] static constexpr Address v6(std::uint64_t high, std::uint64_t low) noexcept {
        return {Family::V6, high, low};
    }
    [[nodiscard]] constexpr unsigned width() const noexcept {
        return family == Family::V4 ? 32 : 128;
    }
    [[nodiscard]] bool is_multicast() const noexcept;
    // 0.0.0.0 or ::
    [[nodiscard]] constexpr bool is_unspecified() const noexcept { return high == 0 && low == 0; }
    // fe80::/10
    [[nodiscard]] bool is_link_local_v6() const noexcept;

    constexpr auto operator<=>(const Address&) const noexcept = default;
};

// An address and how many of its leading bits count. The bits after those are 0.
struct Prefix {
    Address address;
    std::uint8_t length = 0;

    // The address with the bits that do not count cleared.
    [[nodiscard]] static Prefix canonical(Address address, unsigned length) noexcept;
    [[nodiscard]] static Prefix host(Address address) noexcept {
        return {address, static_cast<std::uint8_t>(address.width())};
    }
    [[nodiscard]] bool contains(const Address& other) const noexcept;
    [[nodiscard]] Address first() const noexcept { return address; }
    [[nodiscard]] Address last() const noexcept;
    // 0.0.0.0/0 or ::/0
    [[nodiscard]] constexpr bool is_everyone() const noexcept { return length == 0; }

    constexpr auto operator<=>(const Prefix&) const noexcept = default;
};

// "192.0.2.1" or "2001:db8::1" (inet_pton's forms).
[[nodiscard]] Result<Address> parse_address(std::string_view text);
// "100.68.0.18/18" yields 100.68.0.0/18; the length must be there.
[[nodiscard]] Result<Prefix> parse_cidr(std::string_view text);
// "06:00:ac:10:00:02"
[[nodiscard]] Result<MacAddress> parse_mac(std::string_view text);
[[nodiscard]] std::string to_string(const Address& address);
[[nodiscard]] std::string to_string(const Prefix& prefix);
[[nodiscard]] std::string to_string(const MacAddress& mac);

// The address that stateless autoconfiguration forms from a MAC (RFC 4291, appendix A).
[[nodiscard]] Address link_local_of(const MacAddress& mac) noexcept;

}  // namespace masu::net

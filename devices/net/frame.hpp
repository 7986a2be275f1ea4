// Ethernet frames: where the headers of a frame lie, and Internet checksums.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "devices/net/firewall/address.hpp"
#include "devices/net/firewall/wire.hpp"

namespace masu::net {

// The largest frame there is here: a 64 KiB IP packet behind an Ethernet header with one tag.
inline constexpr std::size_t ethernet_header_size = 14;
inline constexpr std::size_t max_frame_size = 65535 + ethernet_header_size + 4;

inline constexpr std::uint16_t ethertype_ipv4 = 0x0800;
inline constexpr std::uint16_t ethertype_arp = 0x0806;
inline constexpr std::uint16_t ethertype_ipv6 = 0x86dd;
inline constexpr std::uint8_t protocol_icmp = 1;
inline constexpr std::uint8_t protocol_tcp = 6;
inline constexpr std::uint8_t protocol_udp = 17;
inline constexpr std::uint8_t protocol_icmpv6 = 58;

// Where the transport header of an untagged IP packet begins, and what it is. Fragments that are
// not the first have none.
struct TransportPlace {
    bool ipv6 = false;
    std::uint8_t protocol = 0;
    bool fragment = false;        // the packet is a fragment (the first one)
    std::size_t offset = 0;       // of the transport header, from the start of the frame
    std::size_t header_size = 0;  // of a whole TCP or UDP header; 0 for other protocols
};
// Looks at `bytes` only, which hold the beginning of the frame; nothing where it is no IP packet,
// or a header is cut off or malformed.
[[nodiscard]] std::optional<TransportPlace> find_transport(
    std::span<const std::byte> bytes) noexcept;

// The one's complement sum (RFC 1071) of `bytes`, added to `sum`; `bytes` of an odd length count as
// padded with a zero.
[[nodiscard]] std::uint32_t checksum_add(std::uint32_t sum,
                                         std::span<const std::byte> bytes) noexcept;
// Folded and inverted: what goes into the header (in host order).
[[nodiscard]] std::uint16_t checksum_finish(std::uint32_t sum) noexcept;

}  // namespace masu::net

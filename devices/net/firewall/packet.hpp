// One Ethernet frame, read once: what the firewall needs to know of its headers, and no pointer
// back into them. Sources: IEEE 802.3, RFC 791, 8200, 826, 4861, 792, 4443, 768, 9293.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "devices/net/firewall/address.hpp"
#include "devices/net/firewall/verdict.hpp"

namespace masu::net {

// How many bytes of a frame's beginning suffice to judge it (Verdict::Action::NeedWholeFrame
// excepted): Ethernet 14, IPv6 40 with extension headers up to 128, ICMPv6 8, and the packet
// embedded in an ICMP error likewise up to its ports. What does not fit is dropped.
inline constexpr std::size_t max_header_bytes = 320;

// Frames that are looked at as a whole are no longer than this, else dropped.
inline constexpr std::size_t max_inspected_bytes = 9216;

// What a caller hands in. `bytes` is the caller's private copy of the frame's first
// min(length, max_header_bytes) bytes, or more; it begins with the Ethernet header (no virtio
// header). What is then sent must be those same bytes, followed by the rest of the frame.
struct Frame {
    std::span<const std::byte> bytes;
    std::uint32_t length = 0;  // of the whole frame; a segmentation-offload frame counts as one
};

// IP protocol numbers (IANA).
namespace protocol {
inline constexpr std::uint8_t icmp = 1;
inline constexpr std::uint8_t igmp = 2;
inline constexpr std::uint8_t tcp = 6;
inline constexpr std::uint8_t udp = 17;
inline constexpr std::uint8_t icmpv6 = 58;
}  // namespace protocol

// TCP flags (RFC 9293, 3.1).
namespace tcp_flag {
inline constexpr std::uint8_t fin = 0x01;
inline constexpr std::uint8_t syn = 0x02;
inline constexpr std::uint8_t rst = 0x04;
inline constexpr std::uint8_t ack = 0x10;
}  // namespace tcp_flag

// Addresses, protocol and ports of an IP packet. Of ICMP and ICMPv6, `source_port` is the
// identifier of a query (0 of any other message) and `destination_port` is type << 8 | code. Of
// other protocols both are 0.
struct Tuple {
    Address source;
    Address destination;
    std::uint8_t protocol = 0;
    std::uint16_t source_port = 0;
    std::uint16_t destination_port = 0;

    [[nodiscard]] constexpr std::uint8_t icmp_type() const noexcept {
        return static_cast<std::uint8_t>(destination_port >> 8);
    }
    [[nodiscard]] constexpr std::uint8_t icmp_code() const noexcept {
        return static_cast<std::uint8_t>(destination_port);
    }
    constexpr bool operator==(const Tuple&) const noexcept = default;
};

struct Fragment {
    std::uint32_t id = 0;
    std::uint16_t offset = 0;  // bytes, a multiple of 8
    std::uint16_t length = 0;  // bytes of payload in this fragment
    bool more = false;
};

struct Arp {
    bool is_reply = false;
    MacAddress sender_mac{};
    Address sender;
    MacAddress target_mac{};
    Address target;
};

// ICMPv6 133-137 (RFC 4861) and the link-layer address option in it.
struct Ndp {
    Address target;  // of solicitation and advertisement; else ::
    MacAddress link_address{};
    bool has_link_address = false;
};

struct Packet {
    enum class Kind : std::uint8_t { Ip, Arp };

    Kind kind = Kind::Ip;
    MacAddress source_mac{};
    MacAddress destination_mac{};

    // --- Ip ---
    Tuple tuple;                 // ports are 0 of a later fragment
    std::uint8_t hop_limit = 0;  // TTL
    std::uint8_t tcp_flags = 0;
    bool is_fragment = false;   // `fragment` is set; offset 0 is the first
    bool is_ndp = false;        // `ndp` is set
    bool has_embedded = false;  // an ICMP error; `embedded` is the packet it is about
    std::uint32_t tcp_sequence = 0;
    std::uint32_t tcp_acknowledgment = 0;  // valid with tcp_flag::ack
    Fragment fragment;
    Tuple embedded;
    Ndp ndp;
    // From the start of the frame. An offloaded checksum or segmentation must agree with these:
    // csum_start == transport_offset, or the host would write into a header that was judged.
    std::uint16_t network_offset = 14;
    std::uint16_t transport_offset = 0;
    std::uint16_t payload_offset = 0;  // of UDP and TCP: where the data begins
    std::uint32_t ip_length = 0;       // IP header to the end of the payload; flow logs count it

    // --- Arp ---
    Arp arp;
};

// Reads the headers into `packet`; every length is checked against both the bytes at hand and the
// frame's length. Nothing when all is well, else why the frame is refused: cut short, 802.1Q or an
// unknown EtherType, contradictory lengths, an IPv4 source route, an IPv6 routing header with
// segments left, more than 8 extension headers, a jumbogram, a non-final fragment that is no
// multiple of 8, a first fragment without the whole transport header, impossible TCP flags.
// Members whose flag is false are left as they were.
[[nodiscard]] std::optional<Reason> parse_packet(const Frame& frame, Packet& packet) noexcept;

}  // namespace masu::net

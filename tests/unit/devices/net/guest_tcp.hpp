// A guest's side of TCP for tests of the responder: careful or not, over a link that may lose,
// repeat and reorder.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>

#include "devices/net/firewall/wire.hpp"
#include "devices/net/services/read_packet.hpp"
#include "devices/net/services/tcp_responder.hpp"

namespace masu::net::fake {

// What a TCP packet says.
struct TcpPacket {
    std::uint32_t sequence = 0;
    std::uint32_t acknowledgment = 0;
    std::uint8_t flags = 0;
    std::uint16_t window = 65535;
    std::string data;
    std::uint8_t hop_limit = 0;
    [[nodiscard]] bool has(std::uint8_t flag) const { return (flags & flag) != 0; }
};

inline const Address metadata4 = Address::v4(0xa9fea9fe);
inline const Address guest4 = Address::v4(0xac1f000a);

inline Bytes tcp_bytes(const TcpPacket& packet, std::uint16_t port, const Address& from = guest4,
                       const Address& to = metadata4, const MacAddress& mac = {6, 0, 0, 0, 0, 1}) {
    Bytes segment;
    PacketWriter(segment)
        .u16(port)
        .u16(80)
        .u32(packet.sequence)
        .u32(packet.acknowledgment)
        .u16(0x5000U | packet.flags)
        .u16(packet.window)
        .u32(0)
        .text(packet.data);
    Bytes frame;
    write_packet(frame,
                 {.from_mac = mac, .to_mac = {6, 1, 0x23, 0x45, 0x67, 1}, .from = from, .to = to},
                 protocol_tcp, segment, 16);
    return frame;
}

inline TcpPacket read_tcp(std::span<const std::byte> frame) {
    const auto packet = read_packet(frame);
    REQUIRE(packet);
    REQUIRE(packet->tuple.protocol == protocol::tcp);
    // Both checksums must be right: the guest's kernel looks at them.
    if (packet->tuple.source.family == Family::V4)
        CHECK(checksum_finish(checksum_add(0, frame.subspan(14, 20))) == 0);
    Bytes pseudo;
    const auto segment = frame.subspan(packet->transport_offset);
    PacketWriter(pseudo)
        .address(packet->tuple.source)
        .address(packet->tuple.destination)
        .u32(static_cast<std::uint32_t>(segment.size()))
        .u32(protocol_tcp);
    CHECK(checksum_finish(checksum_add(checksum_add(0, pseudo), segment)) == 0);
    const auto* header = segment.data();
    const std::size_t size = std::size_t{4} * (get8(header + 12) >> 4);
    return {.sequence = get32(header + 4),
            .acknowledgment = get32(header + 8),
            .flags = get8(header + 13),
            .window = get16(header + 14),
            .data = {reinterpret_cast<const char*>(header) + size, segment.size() - size},
            .hop_limit = packet->hop_limit};
}

}  // namespace masu::net::fake

// Headers and checksums of packets to the guest.
#include "devices/net/services/packet_writer.hpp"

namespace masu::net {
namespace {

constexpr std::uint32_t dont_fragment = 0x4000;

std::uint32_t pseudo_header_sum(const Route& route, std::uint8_t protocol, std::size_t length) {
    Bytes pseudo;
    PacketWriter(pseudo)
        .address(route.from)
        .address(route.to)
        .u32(static_cast<std::uint32_t>(length))
        .u32(protocol);
    return checksum_add(0, pseudo);
}

}  // namespace

PacketWriter& PacketWriter::address(const Address& address) {
    if (address.family == Family::V4)
        return u32(static_cast<std::uint32_t>(address.low));
    return u32(static_cast<std::uint32_t>(address.high >> 32))
        .u32(static_cast<std::uint32_t>(address.high))
        .u32(static_cast<std::uint32_t>(address.low >> 32))
        .u32(static_cast<std::uint32_t>(address.low));
}

void write_packet(Bytes& out, const Route& route, std::uint8_t protocol,
                  std::span<const std::byte> transport, std::size_t checksum_offset) {
    out.clear();
    PacketWriter writer(out);
    const bool v4 = route.from.family == Family::V4;
    writer.mac(route.to_mac).mac(route.from_mac).u16(v4 ? ethertype_ipv4 : ethertype_ipv6);
    const auto ip = writer.size();
    if (v4) {
        writer.u16(0x4500)
            .u16(static_cast<std::uint32_t>(20 + transport.size()))
            .u16(0)
            .u16(dont_fragment)
            .u8(route.hop_limit)
            .u8(protocol)
            .u16(0)
            .address(route.from)
            .address(route.to);
        put16(&out[ip + 10], checksum_finish(checksum_add(0, std::span(out).subspan(ip, 20))));
    } else {
        writer.u32(0x60000000)
            .u16(static_cast<std::uint32_t>(transport.size()))
            .u8(protocol)
            .u8(route.hop_limit)
            .address(route.from)
            .address(route.to);
    }
    const auto begin = writer.size();
    writer.bytes(transport);
    put16(&out[begin + checksum_offset], 0);
    const auto pseudo =
        protocol == protocol_icmp ? 0 : pseudo_header_sum(route, protocol, transport.size());
    const auto sum = checksum_finish(checksum_add(pseudo, std::span(out).subspan(begin)));
    put16(&out[begin + checksum_offset], sum == 0 && protocol == protocol_udp ? 0xffff : sum);
}

void write_udp(Bytes& out, const Route& route, std::uint16_t from_port, std::uint16_t to_port,
               std::span<const std::byte> payload) {
    Bytes datagram;
    PacketWriter(datagram)
        .u16(from_port)
        .u16(to_port)
        .u16(static_cast<std::uint32_t>(8 + payload.size()))
        .u16(0)
        .bytes(payload);
    write_packet(out, route, protocol_udp, datagram, 6);
}

}  // namespace masu::net

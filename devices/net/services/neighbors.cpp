// ARP (RFC 826), neighbour discovery (RFC 4861, 8106), echo (RFC 792, 4443).
#include "devices/net/services/neighbors.hpp"

#include <algorithm>

#include "devices/net/firewall/wire.hpp"

namespace masu::net {
namespace {

constexpr std::uint8_t icmp_echo_reply = 0;
constexpr std::uint8_t icmp_echo_request = 8;
constexpr std::uint8_t icmpv6_echo_request = 128;
constexpr std::uint8_t icmpv6_echo_reply = 129;
constexpr std::uint8_t router_solicitation = 133;
constexpr std::uint8_t router_advertisement = 134;
constexpr std::uint8_t neighbor_solicitation = 135;
constexpr std::uint8_t neighbor_advertisement = 136;

constexpr std::uint8_t discovery_hop_limit = 255;  // RFC 4861, 6.1, 7.1
constexpr std::uint32_t router_lifetime = 1800;    // seconds
constexpr std::uint32_t prefix_lifetime = 0xffffffff;
// RFC 4861, 4.2: DHCPv6 has an address, and the rest.
constexpr unsigned managed_address = 0x80;
constexpr unsigned other_configuration = 0x40;
constexpr std::size_t largest_echo = 1500;
const Address all_nodes = Address::v6(0xff02'0000'0000'0000, 1);
constexpr MacAddress all_nodes_mac{0x33, 0x33, 0, 0, 0, 1};

}  // namespace

bool ServiceConfig::is_local(const Address& address) const noexcept {
    if (std::ranges::find(metadata, address) != metadata.end())
        return true;
    if (ipv4 && ipv4->local_gateway && ipv4->gateway == address)
        return true;
    return ipv6 && ipv6->local_gateway && ipv6->gateway == address;
}

bool ServiceConfig::is_refused(const Address& address) const noexcept {
    return ipv6 && ipv6->is_single() && address.family == Family::V6 && address != ipv6->address &&
           !address.is_link_local_v6();
}

bool answer_arp(const ServiceConfig& config, const Packet& packet, Bytes& out) {
    const auto& arp = packet.arp;
    if (packet.kind != Packet::Kind::Arp || arp.is_reply || !config.is_local(arp.target))
        return false;
    out.clear();
    PacketWriter(out)
        .mac(packet.source_mac)
        .mac(service_mac)
        .u16(ethertype_arp)
        .u16(1)
        .u16(ethertype_ipv4)
        .u8(6)
        .u8(4)
        .u16(2)
        .mac(service_mac)
        .address(arp.target)
        .mac(arp.sender_mac)
        .address(arp.sender);
    return true;
}

void write_router_advertisement(const ServiceConfig& config, const Address& to,
                                const MacAddress& to_mac, Bytes& out) {
    const auto& network = *config.ipv6;
    Bytes message;
    PacketWriter writer(message);
    // RFC 4861, 4.2: lifetime 0 says that this is no default router.
    writer.u8(router_advertisement)
        .u8(0)
        .u16(0)
        .u8(64)
        .u8(managed_address | other_configuration)
        .u16(network.shared_link ? 0 : router_lifetime);
    writer.u32(0).u32(0);
    writer.u8(1).u8(1).mac(service_mac);  // source link-layer address
    if (config.mtu)
        writer.u8(5).u8(1).u16(0).u32(*config.mtu);
    const auto prefix = Prefix::canonical(network.address, network.prefix_length);
    // On-link and autonomous: a guest without DHCPv6 forms its address by itself, from its MAC.
    writer.u8(3).u8(4).u8(network.prefix_length).u8(0xc0);
    writer.u32(prefix_lifetime).u32(prefix_lifetime).u32(0).address(prefix.address);
    if (!network.dns.empty()) {
        writer.u8(25).u8(static_cast<unsigned>(1 + 2 * network.dns.size())).u16(0);
        writer.u32(router_lifetime);
        for (const auto& server : network.dns)
            writer.address(server);
    }
    write_packet(out,
                 {.from_mac = service_mac,
                  .to_mac = to_mac,
                  .from = *network.gateway,
                  .to = to,
                  .hop_limit = discovery_hop_limit},
                 protocol_icmpv6, message, 2);
}

// One from :: asks whether the address is free (RFC 4862, 5.4.3). Ours is not; nor is one whose
// packets the firewall would drop, so that the guest goes on to the address it was given.
bool asks_for_neighbor(const ServiceConfig& config, const Packet& packet) noexcept {
    if (packet.kind != Packet::Kind::Ip || !packet.is_ndp ||
        packet.tuple.icmp_type() != neighbor_solicitation)
        return false;
    const auto& target = packet.ndp.target;
    return config.is_local(target) ||
           (packet.tuple.source.is_unspecified() && config.is_refused(target));
}

bool answer_discovery(const ServiceConfig& config, const Packet& packet, Bytes& out) {
    if (packet.kind != Packet::Kind::Ip || !packet.is_ndp ||
        packet.hop_limit != discovery_hop_limit)
        return false;
    const auto type = packet.tuple.icmp_type();
    if (type == router_solicitation && config.ipv6 && config.ipv6->local_gateway &&
        config.ipv6->gateway) {
        // A solicitation may come from ::, before the guest has an address.
        const bool to_all = packet.tuple.source.is_unspecified();
        write_router_advertisement(config, to_all ? all_nodes : packet.tuple.source,
                                   to_all ? all_nodes_mac : packet.source_mac, out);
        return true;
    }
    if (!asks_for_neighbor(config, packet))
        return false;
    const bool duplicate_check = packet.tuple.source.is_unspecified();
    const bool router = config.ipv6 && config.ipv6->gateway == packet.ndp.target;
    Bytes message;
    PacketWriter(message)
        .u8(neighbor_advertisement)
        .u8(0)
        .u16(0)
        .u32((router ? 0x8000'0000U : 0) | (duplicate_check ? 0 : 0x4000'0000U) | 0x2000'0000U)
        .address(packet.ndp.target)
        .u8(2)
        .u8(1)
        .mac(service_mac);
    write_packet(out,
                 {.from_mac = service_mac,
                  .to_mac = duplicate_check ? all_nodes_mac : packet.source_mac,
                  .from = packet.ndp.target,
                  .to = duplicate_check ? all_nodes : packet.tuple.source,
                  .hop_limit = discovery_hop_limit},
                 protocol_icmpv6, message, 2);
    return true;
}

bool answer_echo(const ServiceConfig& config, const Packet& packet,
                 std::span<const std::byte> frame, Bytes& out) {
    if (packet.kind != Packet::Kind::Ip || packet.is_fragment ||
        !config.is_local(packet.tuple.destination) || frame.size() > largest_echo)
        return false;
    const bool v4 =
        packet.tuple.protocol == protocol_icmp && packet.tuple.icmp_type() == icmp_echo_request;
    const bool v6 =
        packet.tuple.protocol == protocol_icmpv6 && packet.tuple.icmp_type() == icmpv6_echo_request;
    const std::size_t end = std::size_t{packet.network_offset} + packet.ip_length;
    if ((!v4 && !v6) || packet.transport_offset + 8U > end || end > frame.size())
        return false;
    const auto request = frame.subspan(packet.transport_offset, end - packet.transport_offset);
    Bytes message(request.begin(), request.end());
    message[0] = static_cast<std::byte>(v4 ? icmp_echo_reply : icmpv6_echo_reply);
    write_packet(out,
                 {.from_mac = service_mac,
                  .to_mac = packet.source_mac,
                  .from = packet.tuple.destination,
                  .to = packet.tuple.source},
                 packet.tuple.protocol, message, 2);
    return true;
}

}  // namespace masu::net

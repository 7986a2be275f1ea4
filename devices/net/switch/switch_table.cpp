// Judging a frame against its port's lease, and finding the port it is for.
#include "devices/net/switch/switch_table.hpp"

#include <algorithm>

namespace masu::net {
namespace {

constexpr std::uint8_t neighbor_solicitation = 135;
constexpr std::uint8_t neighbor_advertisement = 136;

std::uint64_t key_of(const MacAddress& mac) noexcept {
    std::uint64_t key = 0;
    for (const auto byte : mac)
        key = key << 8 | byte;
    return key;
}

bool is_group(const MacAddress& mac) noexcept {
    return (mac[0] & 1) != 0;
}

SwitchTable::Route drop(SwitchDrop reason) noexcept {
    return {.drop = reason};
}

}  // namespace

std::string_view to_string(SwitchDrop drop) noexcept {
    switch (drop) {
        case SwitchDrop::None:
            return "none";
        case SwitchDrop::Malformed:
            return "malformed";
        case SwitchDrop::SourceMac:
            return "source_mac";
        case SwitchDrop::SourceAddress:
            return "source_address";
        case SwitchDrop::NeighborSpoof:
            return "neighbor_spoof";
        case SwitchDrop::Multicast:
            return "multicast";
        case SwitchDrop::NoSuchPort:
            return "no_such_port";
        case SwitchDrop::Slow:
            return "slow";
    }
    return "none";
}

Result<> SwitchTable::add(PortId port, const PortAddresses& addresses) {
    if (ports_.size() >= max_ports)
        return fail("the switch has {} ports, which is the limit", max_ports);
    const Port added{addresses, link_local_of(addresses.mac)};
    if (ports_.contains(port) || is_group(addresses.mac) ||
        by_mac_.contains(key_of(addresses.mac)) || by_address_.contains(addresses.ipv4) ||
        by_address_.contains(added.link_local) ||
        (addresses.ipv6 && by_address_.contains(*addresses.ipv6)))
        return fail("{} or {} is another port's already", to_string(addresses.mac),
                    to_string(addresses.ipv4));
    by_mac_.emplace(key_of(addresses.mac), port);
    by_address_.emplace(addresses.ipv4, port);
    by_address_.emplace(added.link_local, port);
    if (addresses.ipv6)
        by_address_.emplace(*addresses.ipv6, port);
    ports_.emplace(port, added);
    return {};
}

void SwitchTable::remove(PortId port) noexcept {
    ports_.erase(port);
    const auto is_its = [port](const auto& entry) { return entry.second == port; };
    std::erase_if(by_mac_, is_its);
    std::erase_if(by_address_, is_its);
}

SwitchTable::Route SwitchTable::holder_of(PortId asking, const Address& address) const noexcept {
    const auto found = by_address_.find(address);
    if (found == by_address_.end() || found->second == asking)
        return drop(SwitchDrop::NoSuchPort);
    return {.to = found->second};
}

SwitchTable::Route SwitchTable::by_mac(PortId port, const MacAddress& mac) const noexcept {
    const auto found = by_mac_.find(key_of(mac));
    if (found == by_mac_.end() || found->second == port)
        return drop(SwitchDrop::NoSuchPort);
    return {.to = found->second};
}

// RFC 826; RFC 5227 for probes, which have no sender yet.
SwitchTable::Route SwitchTable::route_arp(PortId port, const Port& own,
                                          const Packet& packet) const noexcept {
    const auto& arp = packet.arp;
    const bool probe = !arp.is_reply && arp.sender.is_unspecified();
    if (arp.sender_mac != own.addresses.mac || (!probe && arp.sender != own.addresses.ipv4))
        return drop(SwitchDrop::NeighborSpoof);
    if (!arp.is_reply)
        return holder_of(port, arp.target);
    return is_group(packet.destination_mac) ? drop(SwitchDrop::Multicast)
                                            : by_mac(port, packet.destination_mac);
}

// RFC 4861. Each monitor is its own guest's router: no router's message is ever carried.
SwitchTable::Route SwitchTable::route_discovery(PortId port, const Port& own,
                                                const Packet& packet) const noexcept {
    const auto& ndp = packet.ndp;
    const auto type = packet.tuple.icmp_type();
    if (ndp.has_link_address && ndp.link_address != own.addresses.mac)
        return drop(SwitchDrop::NeighborSpoof);
    if (type == neighbor_solicitation) {
        // Without a source: looking whether somebody has the address it means to take.
        if (!packet.tuple.source.is_unspecified() && !own.has(packet.tuple.source))
            return drop(SwitchDrop::SourceAddress);
        return holder_of(port, ndp.target);
    }
    if (type != neighbor_advertisement || !own.has(ndp.target) || !own.has(packet.tuple.source))
        return drop(SwitchDrop::NeighborSpoof);
    return is_group(packet.destination_mac) ? drop(SwitchDrop::Multicast)
                                            : by_mac(port, packet.destination_mac);
}

SwitchTable::Route SwitchTable::route(PortId port,
                                      std::span<const std::byte> bytes) const noexcept {
    const auto found = ports_.find(port);
    Packet packet;
    if (found == ports_.end() ||
        parse_packet({bytes.first(std::min(bytes.size(), max_header_bytes)),
                      static_cast<std::uint32_t>(bytes.size())},
                     packet))
        return drop(SwitchDrop::Malformed);
    const auto& own = found->second;
    if (packet.source_mac != own.addresses.mac)
        return drop(SwitchDrop::SourceMac);
    if (packet.kind == Packet::Kind::Arp)
        return route_arp(port, own, packet);
    if (packet.is_ndp)
        return route_discovery(port, own, packet);
    if (!own.has(packet.tuple.source))
        return drop(SwitchDrop::SourceAddress);
    if (is_group(packet.destination_mac))
        return drop(SwitchDrop::Multicast);
    return by_mac(port, packet.destination_mac);
}

}  // namespace masu::net

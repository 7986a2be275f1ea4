// ARP, neighbor discovery and multicast listener reports: let through without a rule, and only
// about addresses that the sender has.
#include <algorithm>

#include "devices/net/firewall/firewall_state.hpp"

namespace masu::net {
namespace {

constexpr std::uint8_t router_solicitation = 133;
constexpr std::uint8_t router_advertisement = 134;
constexpr std::uint8_t neighbor_solicitation = 135;
constexpr std::uint8_t neighbor_advertisement = 136;
constexpr std::uint8_t listener_query = 130;

// ff02::/16 (RFC 4291, 2.7)
bool is_link_scope_multicast(const Address& address) noexcept {
    return address.family == Family::V6 && (address.high >> 48) == 0xff02;
}

// RFC 2710, RFC 3810
bool is_listener_report(std::uint8_t type) noexcept {
    return type == 131 || type == 132 || type == 143;
}

bool is_neighbors(const FirewallState& state, const Address& address) noexcept {
    const auto& others = state.config.neighbors;
    return std::ranges::find(others, address) != others.end();
}

// Whether the guest may speak for the address. A link-local address that nobody is known to have
// is the guest's from the first time it announces it.
bool may_claim(FirewallState& state, const Address& address) noexcept {
    if (state.may_have(address) && !is_neighbors(state, address))
        return true;
    // fe80::/64, the only part of fe80::/10 in use
    if (address.high != 0xfe80'0000'0000'0000U || address.low == 0 || state.is_local(address) ||
        is_neighbors(state, address) || state.learned_count == FirewallState::max_learned)
        return false;
    state.learned[state.learned_count++] = address;
    return true;
}

// On the same link, as far as one can tell: what leaves without a rule must not be routed on.
bool is_on_link(const FirewallState& state, const Address& address) noexcept {
    return is_link_scope_multicast(address) || address.is_link_local_v6() ||
           std::ranges::any_of(state.config.addresses, [&](const Address& own) {
               return own.family == Family::V6 && own.high == address.high;
           });
}

Verdict judge_egress_ndp(FirewallState& state, const Packet& packet) noexcept {
    const auto& tuple = packet.tuple;
    const auto& ndp = packet.ndp;
    const auto type = tuple.icmp_type();
    if (ndp.has_link_address && ndp.link_address != state.config.mac)
        return drop(Reason::NeighborSpoof);
    if (!is_on_link(state, tuple.destination))
        return drop(Reason::Multicast);
    const bool anonymous = tuple.source.is_unspecified();
    if (type == neighbor_solicitation) {
        // Without a source: looking whether somebody has the address it means to take.
        if (anonymous ? !may_claim(state, ndp.target) : !may_claim(state, tuple.source))
            return drop(Reason::NeighborSpoof);
        return state.is_local(ndp.target) ? local() : pass(Reason::NeighborTraffic);
    }
    if (type == neighbor_advertisement)
        return may_claim(state, ndp.target) && may_claim(state, tuple.source)
                   ? pass(Reason::NeighborTraffic)
                   : drop(Reason::NeighborSpoof);
    if (type == router_solicitation) {
        if (!anonymous && !may_claim(state, tuple.source))
            return drop(Reason::NeighborSpoof);
        return state.config.router_discovery_on_wire ? pass(Reason::NeighborTraffic) : local();
    }
    // Router advertisements and redirects: a guest is no router of this link.
    return drop(Reason::NeighborSpoof);
}

Verdict judge_ingress_ndp(const FirewallState& state, const Packet& packet) noexcept {
    const auto& tuple = packet.tuple;
    const auto& target = packet.ndp.target;
    if (state.owns(tuple.source) || state.is_local(tuple.source))
        return drop(Reason::NeighborSpoof);
    switch (tuple.icmp_type()) {
        case neighbor_solicitation:
            return state.may_have(target) ? pass(Reason::NeighborTraffic)
                                          : drop(Reason::DestinationCheck);
        case neighbor_advertisement:
            if (state.owns(target) || state.is_local(target))
                return drop(Reason::NeighborSpoof);
            return state.may_have(tuple.destination) || is_link_scope_multicast(tuple.destination)
                       ? pass(Reason::NeighborTraffic)
                       : drop(Reason::DestinationCheck);
        case router_advertisement:
            return state.config.router_discovery_on_wire && tuple.source.is_link_local_v6()
                       ? pass(Reason::NeighborTraffic)
                       : drop(Reason::NeighborSpoof);
        default:
            // Nobody asks a guest for a router, nor tells it of a better one.
            return drop(Reason::NeighborSpoof);
    }
}

}  // namespace

// RFC 826; RFC 5227 for probes.
Verdict FirewallState::judge_arp(Direction direction, const Packet& packet) noexcept {
    const auto& arp = packet.arp;
    if (direction == Direction::Egress) {
        if (packet.source_mac != config.mac)
            return drop(Reason::SourceMac);
        const bool probe = !arp.is_reply && arp.sender.is_unspecified();
        if (arp.sender_mac != config.mac || (!probe && !may_have(arp.sender)))
            return drop(Reason::NeighborSpoof);
        return is_local(arp.target) ? local() : pass(Reason::NeighborTraffic);
    }
    if (packet.destination_mac != config.mac && !is_group(packet.destination_mac))
        return drop(Reason::DestinationMac);
    if (arp.sender_mac != packet.source_mac || owns(arp.sender) || is_local(arp.sender))
        return drop(Reason::NeighborSpoof);
    return may_have(arp.target) ? pass(Reason::NeighborTraffic) : drop(Reason::DestinationCheck);
}

// Nothing for other ICMPv6, which goes the way of all packets.
std::optional<Verdict> FirewallState::judge_link_control(Direction direction,
                                                         const Packet& packet) noexcept {
    const auto& tuple = packet.tuple;
    if (packet.fragment.offset != 0)
        return std::nullopt;
    const auto type = tuple.icmp_type();
    if (packet.is_ndp) {
        // RFC 4861, 7.1: 255 shows that no router has passed it on.
        if (packet.hop_limit != 255 || tuple.icmp_code() != 0)
            return drop(Reason::MalformedFrame);
        return direction == Direction::Egress ? judge_egress_ndp(*this, packet)
                                              : judge_ingress_ndp(*this, packet);
    }
    if (!is_listener_report(type) && type != listener_query)
        return std::nullopt;
    if (packet.is_fragment || packet.hop_limit != 1 || !is_link_scope_multicast(tuple.destination))
        return drop(Reason::Multicast);
    if (direction == Direction::Egress) {
        const bool allowed =
            is_listener_report(type) && (tuple.source.is_unspecified() || may_have(tuple.source));
        return allowed ? pass(Reason::NeighborTraffic) : drop(Reason::NeighborSpoof);
    }
    return type == listener_query && tuple.source.is_link_local_v6() && !owns(tuple.source)
               ? pass(Reason::NeighborTraffic)
               : drop(Reason::Multicast);
}

}  // namespace masu::net

// The questions a packet is asked, in their order: link, ends, services, fragments, flows, rules.
#include "devices/net/firewall/firewall_state.hpp"

#include <algorithm>

#include "devices/net/flow_log.hpp"

namespace masu::net {
namespace {

// Lets code that is the same for both families find the family's own table and key.
FlowKey<std::uint32_t>& key_of(FirewallState::Prepared& prepared, std::uint32_t /*tag*/) noexcept {
    return prepared.key4;
}
FlowKey<V6Bits>& key_of(FirewallState::Prepared& prepared, V6Bits /*tag*/) noexcept {
    return prepared.key6;
}

bool is_related_error_type(const Tuple& tuple) noexcept {
    const auto type = tuple.icmp_type();
    if (tuple.protocol == protocol::icmp)
        return type == 3 || type == 11 || type == 12;
    return tuple.protocol == protocol::icmpv6 && type >= 1 && type <= 4;
}

bool begins_flow(const Packet& packet) noexcept {
    return packet.tuple.protocol == protocol::tcp &&
           (packet.tcp_flags & (tcp_flag::syn | tcp_flag::ack)) == tcp_flag::syn;
}

}  // namespace

bool is_martian(const Address& address) noexcept {
    if (address.family == Family::V4) {
        const auto first = address.low >> 24;
        return first == 0 || first == 127 || first >= 224;
    }
    if (address.is_multicast())
        return true;
    // ::, ::1 and the IPv4-mapped ::ffff:0:0/96
    return address.high == 0 && (address.low <= 1 || (address.low >> 32) == 0xffff);
}

bool is_private(const Address& address) noexcept {
    if (address.family == Family::V6)
        return (address.high >> 57) == 0x7e || address.is_link_local_v6();
    const auto bits = static_cast<std::uint32_t>(address.low);
    return (bits >> 24) == 10 || (bits >> 20) == 0xac1 || (bits >> 16) == 0xc0a8 ||
           (bits >> 22) == 0x191 || (bits >> 16) == 0xa9fe;
}

FirewallState::FirewallState(InterfaceConfig interface, const FirewallLimits& limit,
                             const std::array<SipKey, 4>& keys)
    : config(std::move(interface)),
      limits(limit),
      flows4(keys[0]),
      flows6(keys[1]),
      fragments(keys[2]),
      names(keys[3], limit.max_names) {}

bool FirewallState::owns(const Address& address) const noexcept {
    if (std::ranges::find(config.addresses, address) != config.addresses.end())
        return true;
    if (address.is_link_local_v6()) {
        const auto known = std::span(learned).first(learned_count);
        return address == link_local_of(config.mac) ||
               std::ranges::find(known, address) != known.end();
    }
    return std::ranges::any_of(config.delegated,
                               [&](const Prefix& prefix) { return prefix.contains(address); });
}

bool FirewallState::may_have(const Address& address) const noexcept {
    const bool unknown = config.addresses.empty() && config.delegated.empty();
    return owns(address) || (unknown && !is_local(address));
}

bool FirewallState::is_local(const Address& address) const noexcept {
    return std::ranges::find(config.local, address) != config.local.end();
}

void FirewallState::prepare(Direction direction, const Frame& frame,
                            Prepared& prepared) const noexcept {
    auto& packet = prepared.packet;
    prepared.hashed = false;
    prepared.trouble = parse_packet(frame, packet);
    if (prepared.trouble || packet.kind != Packet::Kind::Ip || packet.fragment.offset != 0)
        return;
    if (packet.tuple.source.family == Family::V4) {
        prepared.hashed = flow_key(direction, packet.tuple, prepared.key4);
        if (prepared.hashed)
            prepared.hash = flows4.hash(prepared.key4);
    } else {
        prepared.hashed = flow_key(direction, packet.tuple, prepared.key6);
        if (prepared.hashed)
            prepared.hash = flows6.hash(prepared.key6);
    }
}

void FirewallState::prefetch(const Prepared& prepared) const noexcept {
    if (!prepared.hashed)
        return;
    if (prepared.packet.tuple.source.family == Family::V4)
        flows4.prefetch(prepared.hash);
    else
        flows6.prefetch(prepared.hash);
}

Verdict FirewallState::judge(Direction direction, const Frame& frame, Prepared& prepared) noexcept {
    const auto& packet = prepared.packet;
    Verdict verdict;
    judged = nullptr;
    if (prepared.trouble) {
        verdict = drop(*prepared.trouble);
    } else {
        if (packet.kind == Packet::Kind::Ip)
            judged = &packet.tuple;
        if (rules == nullptr)
            verdict = drop(Reason::NoRules);
        else if (packet.kind == Packet::Kind::Arp)
            verdict = judge_arp(direction, packet);
        else
            verdict = judge_ip(direction, frame, prepared);
    }
    if (verdict.action != Action::NeedWholeFrame)
        count(direction, frame, packet, verdict);
    return verdict;
}

void FirewallState::count(Direction direction, const Frame& frame, const Packet& packet,
                          const Verdict& verdict) noexcept {
    const auto reason = std::to_underlying(verdict.reason);
    ++counts.packets[reason];
    counts.bytes[reason] += frame.length;
    if (verdict.rule < rule_counts.size()) {
        ++rule_counts[verdict.rule].packets;
        rule_counts[verdict.rule].bytes += frame.length;
    }
    if (log != nullptr && judged != nullptr)
        log->record(direction, *judged, packet.ip_length, packet.tcp_flags, verdict, now);
}

// What the addresses may be, before any rule is looked at.
std::optional<Verdict> FirewallState::check_ends(Direction direction,
                                                 const Packet& packet) const noexcept {
    const auto& tuple = packet.tuple;
    const bool to_all =
        tuple.destination.is_multicast() || tuple.destination == Address::v4(0xffff'ffffU);
    if (to_all)
        return drop(Reason::Multicast);
    if (is_martian(tuple.source))
        return drop(Reason::SourceCheck);
    if (is_martian(tuple.destination))
        return drop(Reason::DestinationCheck);
    if (direction == Direction::Egress) {
        if (is_local(tuple.source) || (config.source_dest_check && !may_have(tuple.source)))
            return drop(Reason::SourceCheck);
        // Local services answer nobody but the guest itself, whatever it routes.
        if (is_local(tuple.destination) && !is_dns(direction, tuple))
            return may_have(tuple.source) ? local() : drop(Reason::SourceCheck);
        return std::nullopt;
    }
    if (is_group(packet.destination_mac))
        return drop(Reason::DestinationMac);
    if (is_local(tuple.source) || owns(tuple.source))
        return drop(Reason::SourceCheck);
    if (is_local(tuple.destination) || (config.source_dest_check && !may_have(tuple.destination)))
        return drop(Reason::DestinationCheck);
    return std::nullopt;
}

Verdict FirewallState::judge_ip(Direction direction, const Frame& frame,
                                Prepared& prepared) noexcept {
    const auto& packet = prepared.packet;
    if (direction == Direction::Egress) {
        if (packet.source_mac != config.mac)
            return drop(Reason::SourceMac);
    } else if (packet.destination_mac != config.mac && !is_group(packet.destination_mac)) {
        return drop(Reason::DestinationMac);
    }
    if (packet.tuple.protocol == protocol::icmpv6) {
        if (const auto verdict = judge_link_control(direction, packet))
            return *verdict;
    } else if (packet.tuple.protocol == protocol::udp) {
        if (const auto verdict = judge_dhcp(direction, packet))
            return *verdict;
    }
    if (const auto verdict = check_ends(direction, packet))
        return *verdict;
    if (packet.fragment.offset != 0) {
        const auto found = fragments.follow(direction, packet, now);
        if (found.outcome == FragmentCache::Outcome::WithoutFirst)
            return drop(Reason::FragmentWithoutFirst);
        fragment_tuple_ = found.first;
        judged = &fragment_tuple_;
        return found.outcome == FragmentCache::Outcome::Follow ? pass(Reason::LaterFragment)
                                                               : drop(Reason::FragmentOverlap);
    }
    if (packet.is_fragment && !fragments.may_begin(direction, packet, now))
        return drop(Reason::FragmentOverlap);
    const auto verdict = packet.tuple.source.family == Family::V4
                             ? judge_flow(direction, frame, prepared, flows4)
                             : judge_flow(direction, frame, prepared, flows6);
    if (packet.is_fragment && verdict.passes())
        fragments.begin(direction, packet, now);
    return verdict;
}

template <class Bits>
Verdict FirewallState::judge_flow(Direction direction, const Frame& frame, Prepared& prepared,
                                  FlowTable<Bits>& flows) noexcept {
    const auto& packet = prepared.packet;
    const bool exempt = is_exempt(direction, packet.tuple);
    const bool dns_by_name = names.active() && is_dns(direction, packet.tuple);
    if (dns_by_name) {
        const auto verdict = direction == Direction::Egress ? judge_dns_query(frame, packet)
                                                            : look_at_dns_answer(frame, packet);
        if (verdict)
            return *verdict;
    }
    if (prepared.hashed && flows.size() != 0) {
        auto* flow = flows.find(key_of(prepared, Bits{}), prepared.hash, now);
        if (flow != nullptr && advance_flow(*flow, direction, packet, rules->timeouts(), now)) {
            if (dns_by_name && direction == Direction::Ingress)
                learn_dns_answer(frame, packet);
            return pass(exempt ? Reason::ExemptService : Reason::TrackedFlow);
        }
        if (flow != nullptr)
            flows.erase(flow);
    }
    if (packet.has_embedded && rules->related_icmp_errors() && is_related(direction, packet, flows))
        return pass(Reason::RelatedError);
    return judge_new(direction, prepared, flows, exempt && direction == Direction::Egress);
}

// The error must go to the very end that sent the packet it quotes, and that packet's flow be live,
// or be one that needs no tracking.
template <class Bits>
bool FirewallState::is_related(Direction direction, const Packet& packet,
                               FlowTable<Bits>& flows) noexcept {
    if (!is_related_error_type(packet.tuple) || packet.embedded.source != packet.tuple.destination)
        return false;
    FlowKey<Bits> key;
    if (!flow_key(opposite(direction), packet.embedded, key))
        return false;
    if (flows.find(key, flows.hash(key), now) != nullptr)
        return true;
    // Of an untracked flow there is no more to know than that such packets pass.
    const auto match = rules->match(opposite(direction), packet.embedded);
    return match.rule != Verdict::no_rule &&
           rules->untracked(opposite(direction), packet.embedded, match.everyone, false);
}

// No flow knows the packet: rules decide, and whether a flow begins.
template <class Bits>
Verdict FirewallState::judge_new(Direction direction, Prepared& prepared, FlowTable<Bits>& flows,
                                 bool exempt) noexcept {
    const auto& packet = prepared.packet;
    std::uint32_t rule = Verdict::no_rule;
    if (!exempt) {
        const auto match = rules->match(direction, packet.tuple);
        rule = match.rule;
        if (rule == Verdict::no_rule && direction == Direction::Egress && names.active())
            rule = names.match(rules->names(), packet.tuple, now);
        if (rule == Verdict::no_rule)
            return drop(Reason::NoRule);
        if (!prepared.hashed ||
            rules->untracked(direction, packet.tuple, match.everyone, begins_flow(packet)))
            return pass(Reason::UntrackedRule, rule);
        // An untracked flow ends with its rule: what the guest still sends on it begins no tracked
        // one, by which the other end would come in again.
        const auto family = std::to_underlying(packet.tuple.source.family);
        if (direction == Direction::Egress && packet.tuple.protocol == protocol::tcp &&
            !begins_flow(packet) && once_untracked[family].test(packet.tuple.source_port))
            return pass(Reason::UntrackedRule, rule);
    } else if (!prepared.hashed) {
        return pass(Reason::ExemptService);
    }
    const auto limit = limits.max_flows + (exempt ? exempt_reserve : 0);
    if (flow_count() >= limit)
        flows.sweep(64, now);
    Flow<Bits>* flow =
        flow_count() < limit ? flows.insert(key_of(prepared, Bits{}), prepared.hash, now) : nullptr;
    if (flow == nullptr) {
        ++counts.conntrack_allowance_exceeded;
        return drop(Reason::TableFull);
    }
    if (!begin_flow(*flow, direction, packet, rules->timeouts(), now)) {
        flows.erase(flow);
        return pass(exempt ? Reason::ExemptService : Reason::UntrackedRule, rule);
    }
    return pass(exempt ? Reason::ExemptService : Reason::NewFlow, rule);
}

}  // namespace masu::net

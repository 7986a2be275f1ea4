// What the firewall says about a frame, and why.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

namespace masu::net {

// Seen from the guest. Egress: the guest sent it. Ingress: it came from the backend.
enum class Direction : std::uint8_t { Ingress, Egress };

[[nodiscard]] constexpr Direction opposite(Direction direction) noexcept {
    return direction == Direction::Ingress ? Direction::Egress : Direction::Ingress;
}

enum class Action : std::uint8_t {
    Drop,
    // To the backend (egress), to the guest (ingress).
    Pass,
    // Egress only: it is for a service that the monitor itself answers (InterfaceConfig::local).
    // It must not reach the backend.
    Local,
    // Egress only: it is not sent. Firewall::answer() holds a frame for the guest instead.
    Answer,
    // The headers do not suffice. Call judge() again with all bytes of the frame in Frame::bytes.
    // Nothing was counted or changed. Only for frames of max_inspected_bytes or less.
    NeedWholeFrame,
};

// Each has a counter. The order is the saved and printed one; new ones go to the end.
enum class Reason : std::uint8_t {
    // Passed
    TrackedFlow,      // belongs to a flow that was admitted before
    NewFlow,          // a rule admits it; a flow was created
    UntrackedRule,    // a rule admits it; no flow is needed
    RelatedError,     // an ICMP error about a live flow
    LaterFragment,    // the first fragment was admitted
    NeighborTraffic,  // ARP, NDP, MLD
    ExemptService,    // DHCP, the resolver, time: never filtered
    LocalService,     // the monitor answers
    // Dropped
    NoRule,
    NoRules,           // the interface has no readable rule set: nothing passes
    TableFull,         // a new flow is needed, and the table is full
    MalformedFrame,    // lengths or fields that contradict each other
    UnsupportedFrame,  // VLAN tags, unknown EtherTypes, source routes, too many headers
    SourceMac,         // the guest sent from a MAC that is not its own
    DestinationMac,    // the frame is for another MAC
    SourceCheck,       // the source address is not one it may have
    DestinationCheck,  // the destination is not one of the guest's
    NeighborSpoof,     // ARP or NDP about an address that is not the sender's
    Multicast,         // multicast and broadcast are not carried
    FragmentWithoutFirst,
    FragmentOverlap,  // overlapping, beyond the end, or too scattered
    NameRefused,      // a DNS query for a name no rule allows, or one that cannot be read
    Count,
};
inline constexpr std::size_t reason_count = std::to_underlying(Reason::Count);

// "tracked_flow", "no_rule": names of counters.
[[nodiscard]] std::string_view to_string(Reason reason) noexcept;

struct Verdict {
    static constexpr std::uint32_t no_rule = 0xffffffff;

    Action action = Action::Drop;
    Reason reason = Reason::NoRules;
    std::uint32_t rule = no_rule;  // index into CompiledRules::rules() when a rule decided

    [[nodiscard]] constexpr bool passes() const noexcept { return action == Action::Pass; }
};

}  // namespace masu::net

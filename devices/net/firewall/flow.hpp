// One tracked flow: its key, seen from the guest, and what the two ends have said so far.
#pragma once

#include <cstdint>

#include "base/clock.hpp"
#include "devices/net/firewall/compiled_rules.hpp"
#include "devices/net/firewall/packet.hpp"
#include "devices/net/firewall/rules.hpp"
#include "devices/net/firewall/verdict.hpp"

namespace masu::net {

// Saved by number: new ones go to the end.
enum class FlowState : std::uint8_t {
    Empty,  // no flow: the mark of a free slot
    Moved,  // no flow either, but a search goes on past it
    // TCP, in the words of RFC 9293 and of Linux's conntrack
    SynSent,
    SynReceived,
    Midstream,  // picked up without its handshake, the other end not heard of yet
    Established,
    FinWait,    // one end has closed
    CloseWait,  // and the other has acknowledged that
    LastAck,    // both have closed
    TimeWait,
    Closed,  // by RST
    // UDP
    UdpOneWay,
    UdpReply,    // one request, one reply
    UdpRequest,  // a request after that
    UdpStream,   // more than one request and reply
    // Others
    IcmpQuery,
    Other,
    Count,
};

// What makes two packets one flow, whichever way they go. ICMP queries: the identifier, and which
// query by whom. Other protocols without ports: both are 0.
template <class Bits>
struct FlowKey {
    Bits local;  // the guest's end
    Bits remote;
    std::uint16_t local_port = 0;
    std::uint16_t remote_port = 0;
    std::uint8_t protocol = 0;
    constexpr bool operator==(const FlowKey&) const noexcept = default;
};

// 32 bytes for IPv4: two share a cache line.
template <class Bits>
struct alignas(sizeof(Bits) == 4 ? 32 : 64) Flow {
    Bits local{};
    Bits remote{};
    std::uint16_t local_port = 0;
    std::uint16_t remote_port = 0;
    std::uint8_t protocol = 0;
    FlowState state = FlowState::Empty;
    Direction initiator = Direction::Ingress;  // the direction of its first packet
    // TCP. Bit 0, 1: `acknowledged` of that direction is known. Bit 2, 3: it has sent FIN.
    std::uint8_t marks = 0;
    // TCP: the last acknowledgment number sent in each direction.
    std::uint32_t acknowledged[2]{};
    Nanoseconds expires = 0;

    [[nodiscard]] bool has_key(const FlowKey<Bits>& key) const noexcept {
        return local == key.local && remote == key.remote && local_port == key.local_port &&
               remote_port == key.remote_port && protocol == key.protocol;
    }
    [[nodiscard]] FlowKey<Bits> key() const noexcept {
        return {local, remote, local_port, remote_port, protocol};
    }
    [[nodiscard]] bool live(Nanoseconds now) const noexcept {
        return state > FlowState::Moved && expires > now;
    }
};
static_assert(sizeof(Flow<std::uint32_t>) == 32 && sizeof(Flow<V6Bits>) == 64);

// The key of a packet that goes in `direction`. False when no flow can hold it: ICMP that is no
// query, such as an error or a redirect.
template <class Bits>
[[nodiscard]] bool flow_key(Direction direction, const Tuple& tuple, FlowKey<Bits>& key) noexcept;

// How long a flow in `state` may be idle.
[[nodiscard]] Nanoseconds idle_time(FlowState state, const FlowTimeouts& timeouts) noexcept;

// Sets up the flow's state from its first packet. False when the packet begins no flow (a RST).
template <class Bits>
[[nodiscard]] bool begin_flow(Flow<Bits>& flow, Direction direction, const Packet& packet,
                              const FlowTimeouts& timeouts, Nanoseconds now) noexcept;

// Moves the flow on by a packet that belongs to it, and its expiry with it. False when the packet
// begins a new flow of the same key: the old one is over, and rules decide.
template <class Bits>
[[nodiscard]] bool advance_flow(Flow<Bits>& flow, Direction direction, const Packet& packet,
                                const FlowTimeouts& timeouts, Nanoseconds now) noexcept;

}  // namespace masu::net

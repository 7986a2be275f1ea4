// The life of a flow: keys, states and idle times.
#include "devices/net/firewall/flow.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace masu::net {
namespace {

constexpr Nanoseconds second = 1'000'000'000;
// A RST somewhere in the window, but not where the next byte belongs, may be forged: it only
// shortens the wait, and any other packet lengthens it again.
constexpr Nanoseconds doubtful_reset_time = 300 * second;

constexpr std::uint16_t initiated_by_guest = 0x100;

std::uint32_t bits_of(const Address& address, std::uint32_t /*tag*/) noexcept {
    return static_cast<std::uint32_t>(address.low);
}
V6Bits bits_of(const Address& address, V6Bits /*tag*/) noexcept {
    return {address.high, address.low};
}

// The request's type of an ICMP query, and whether the message is the reply. RFC 792, 950, 4443.
struct IcmpQuery {
    std::uint8_t request = 0;
    bool is_reply = false;
};
bool icmp_query(const Tuple& tuple, IcmpQuery& query) noexcept {
    const auto type = tuple.icmp_type();
    if (tuple.protocol == protocol::icmpv6) {
        query = {128, type == 129};
        return type == 128 || type == 129;
    }
    switch (type) {
        case 0:
        case 8:
            query = {8, type == 0};
            return true;
        case 13:
        case 15:
        case 17:
            query = {type, false};
            return true;
        case 14:
        case 16:
        case 18:
            query = {static_cast<std::uint8_t>(type - 1), true};
            return true;
        default:
            return false;
    }
}

std::uint8_t ack_mark(Direction direction) noexcept {
    return static_cast<std::uint8_t>(1U << std::to_underlying(direction));
}
std::uint8_t fin_mark(Direction direction) noexcept {
    return static_cast<std::uint8_t>(4U << std::to_underlying(direction));
}
constexpr std::uint8_t both_fins = 4 | 8;

bool is_first_syn(const Packet& packet) noexcept {
    return (packet.tcp_flags & (tcp_flag::syn | tcp_flag::ack)) == tcp_flag::syn;
}

template <class Bits>
void note_acknowledgment(Flow<Bits>& flow, Direction direction, const Packet& packet) noexcept {
    if ((packet.tcp_flags & tcp_flag::ack) == 0)
        return;
    flow.acknowledged[std::to_underlying(direction)] = packet.tcp_acknowledgment;
    flow.marks |= ack_mark(direction);
}

// RFC 5961, 3.2: a RST is to be believed when its sequence number is the next one expected.
template <class Bits>
void reset_tcp(Flow<Bits>& flow, Direction direction, const Packet& packet,
               const FlowTimeouts& timeouts, Nanoseconds now) noexcept {
    const auto other = opposite(direction);
    const bool known = (flow.marks & ack_mark(other)) != 0;
    const bool exact =
        !known || packet.tcp_sequence == flow.acknowledged[std::to_underlying(other)];
    if (flow.state == FlowState::Closed)
        return;
    if (exact)
        flow.state = FlowState::Closed;
    const auto left = exact ? idle_time(FlowState::Closed, timeouts) : doubtful_reset_time;
    flow.expires = std::min(flow.expires, now + left);
}

// Where a packet without SYN or RST takes a TCP flow.
template <class Bits>
FlowState next_tcp_state(Flow<Bits>& flow, Direction direction, const Packet& packet) noexcept {
    const bool from_initiator = direction == flow.initiator;
    auto state = flow.state;
    if (state == FlowState::Midstream && !from_initiator)
        state = FlowState::Established;
    if (state == FlowState::SynReceived && from_initiator)
        state = FlowState::Established;
    if ((packet.tcp_flags & tcp_flag::fin) != 0 && state != FlowState::SynSent) {
        flow.marks |= fin_mark(direction);
        if ((flow.marks & both_fins) == both_fins)
            return state == FlowState::TimeWait ? state : FlowState::LastAck;
        return state == FlowState::CloseWait ? state : FlowState::FinWait;
    }
    if (state == FlowState::FinWait && (flow.marks & fin_mark(opposite(direction))) != 0)
        return FlowState::CloseWait;
    if (state == FlowState::LastAck)
        return FlowState::TimeWait;
    return state;
}

template <class Bits>
bool advance_tcp(Flow<Bits>& flow, Direction direction, const Packet& packet,
                 const FlowTimeouts& timeouts, Nanoseconds now) noexcept {
    const auto state = flow.state;
    if ((packet.tcp_flags & tcp_flag::rst) != 0) {
        reset_tcp(flow, direction, packet, timeouts, now);
        return true;
    }
    if (is_first_syn(packet)) {
        if (state == FlowState::TimeWait || state == FlowState::Closed)
            return false;
        if (state == FlowState::SynSent && direction != flow.initiator)
            flow.state = FlowState::SynReceived;  // both opened at once
        // A SYN in the middle of a connection is let through for the other end to answer, but does
        // not keep the flow alive.
        if (state != FlowState::SynSent && state != FlowState::SynReceived)
            return true;
    } else if ((packet.tcp_flags & tcp_flag::syn) != 0) {
        if (state == FlowState::SynSent && direction != flow.initiator)
            flow.state = FlowState::SynReceived;
        if (state == FlowState::Midstream && direction != flow.initiator)
            flow.state = FlowState::Established;
    } else if (state != FlowState::Closed) {
        flow.state = next_tcp_state(flow, direction, packet);
    }
    note_acknowledgment(flow, direction, packet);
    if (state != FlowState::Closed)
        flow.expires = now + idle_time(flow.state, timeouts);
    return true;
}

FlowState next_udp_state(FlowState state, bool from_initiator) noexcept {
    switch (state) {
        case FlowState::UdpOneWay:
            return from_initiator ? state : FlowState::UdpReply;
        case FlowState::UdpReply:
            return from_initiator ? FlowState::UdpRequest : state;
        case FlowState::UdpRequest:
            return from_initiator ? state : FlowState::UdpStream;
        default:
            return state;
    }
}

}  // namespace

template <class Bits>
bool flow_key(Direction direction, const Tuple& tuple, FlowKey<Bits>& key) noexcept {
    const bool out = direction == Direction::Egress;
    key.local = bits_of(out ? tuple.source : tuple.destination, Bits{});
    key.remote = bits_of(out ? tuple.destination : tuple.source, Bits{});
    key.protocol = tuple.protocol;
    if (tuple.protocol == protocol::icmp || tuple.protocol == protocol::icmpv6) {
        IcmpQuery query;
        if (!icmp_query(tuple, query))
            return false;
        // The initiator is part of the key: a request is no reply to one of the same identifier.
        const bool guest_asked = out != query.is_reply;
        key.local_port = tuple.source_port;
        key.remote_port =
            static_cast<std::uint16_t>(query.request | (guest_asked ? initiated_by_guest : 0));
        return true;
    }
    key.local_port = out ? tuple.source_port : tuple.destination_port;
    key.remote_port = out ? tuple.destination_port : tuple.source_port;
    return true;
}

Nanoseconds idle_time(FlowState state, const FlowTimeouts& timeouts) noexcept {
    switch (state) {
        case FlowState::SynSent:
        case FlowState::Midstream:
        case FlowState::FinWait:
        case FlowState::TimeWait:
            return 120 * second;
        case FlowState::SynReceived:
        case FlowState::CloseWait:
            return 60 * second;
        case FlowState::Established:
            return timeouts.tcp_established * second;
        case FlowState::Closed:
            return 10 * second;
        case FlowState::UdpOneWay:
        case FlowState::UdpReply:
        case FlowState::UdpRequest:
            return timeouts.udp * second;
        case FlowState::UdpStream:
            return timeouts.udp_stream * second;
        case FlowState::LastAck:
        case FlowState::IcmpQuery:
            return 30 * second;
        case FlowState::Other:
            return 600 * second;
        case FlowState::Empty:
        case FlowState::Moved:
        case FlowState::Count:
            break;
    }
    return 0;
}

template <class Bits>
bool begin_flow(Flow<Bits>& flow, Direction direction, const Packet& packet,
                const FlowTimeouts& timeouts, Nanoseconds now) noexcept {
    flow.initiator = direction;
    flow.marks = 0;
    flow.acknowledged[0] = flow.acknowledged[1] = 0;
    switch (packet.tuple.protocol) {
        case protocol::tcp:
            if ((packet.tcp_flags & tcp_flag::rst) != 0)
                return false;
            flow.state = is_first_syn(packet) ? FlowState::SynSent : FlowState::Midstream;
            note_acknowledgment(flow, direction, packet);
            if ((packet.tcp_flags & tcp_flag::fin) != 0)
                flow.marks |= fin_mark(direction);
            break;
        case protocol::udp:
            flow.state = FlowState::UdpOneWay;
            break;
        case protocol::icmp:
        case protocol::icmpv6: {
            IcmpQuery query;
            if (!icmp_query(packet.tuple, query) || query.is_reply)
                return false;
            flow.state = FlowState::IcmpQuery;
            break;
        }
        default:
            flow.state = FlowState::Other;
            break;
    }
    flow.expires = now + idle_time(flow.state, timeouts);
    return true;
}

template <class Bits>
bool advance_flow(Flow<Bits>& flow, Direction direction, const Packet& packet,
                  const FlowTimeouts& timeouts, Nanoseconds now) noexcept {
    if (flow.protocol == protocol::tcp)
        return advance_tcp(flow, direction, packet, timeouts, now);
    if (flow.protocol == protocol::udp)
        flow.state = next_udp_state(flow.state, direction == flow.initiator);
    flow.expires = now + idle_time(flow.state, timeouts);
    return true;
}

template bool flow_key(Direction, const Tuple&, FlowKey<std::uint32_t>&) noexcept;
template bool flow_key(Direction, const Tuple&, FlowKey<V6Bits>&) noexcept;
template bool begin_flow(Flow<std::uint32_t>&, Direction, const Packet&, const FlowTimeouts&,
                         Nanoseconds) noexcept;
template bool begin_flow(Flow<V6Bits>&, Direction, const Packet&, const FlowTimeouts&,
                         Nanoseconds) noexcept;
template bool advance_flow(Flow<std::uint32_t>&, Direction, const Packet&, const FlowTimeouts&,
                           Nanoseconds) noexcept;
template bool advance_flow(Flow<V6Bits>&, Direction, const Packet&, const FlowTimeouts&,
                           Nanoseconds) noexcept;

}  // namespace masu::net

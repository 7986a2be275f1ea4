// TCP's state machine, as far as one who only answers needs it (RFC 9293, 3.10).
#include "devices/net/services/tcp_responder.hpp"

#include <algorithm>

#include "devices/net/firewall/wire.hpp"

namespace masu::net {
namespace {

constexpr std::uint8_t psh = 0x08;
constexpr std::uint8_t option_end = 0;
constexpr std::uint8_t option_nop = 1;
constexpr std::uint8_t option_mss = 2;
constexpr std::uint16_t smallest_mss = 64;
constexpr std::uint16_t default_mss4 = 536;
constexpr std::uint16_t default_mss6 = 1220;

// Comparison in sequence space (RFC 9293, 3.4).
bool before(std::uint32_t a, std::uint32_t b) {
    return static_cast<std::int32_t>(a - b) < 0;
}

std::uint64_t mix(std::uint64_t x) {
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdULL;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ULL;
    return x ^ x >> 33;
}

}  // namespace

struct TcpResponder::Segment {
    std::uint32_t sequence = 0;
    std::uint32_t acknowledgment = 0;
    std::uint8_t flags = 0;
    std::uint16_t window = 0;
    std::uint16_t mss = 0;  // 0: no option
    std::string_view data;

    [[nodiscard]] bool has(std::uint8_t flag) const noexcept { return (flags & flag) != 0; }
    [[nodiscard]] std::uint32_t length() const noexcept {
        return static_cast<std::uint32_t>(data.size()) + (has(tcp_flag::syn) ? 1 : 0) +
               (has(tcp_flag::fin) ? 1 : 0);
    }

    static std::optional<Segment> parse(const Packet& packet, std::span<const std::byte> frame) {
        const std::size_t end =
            std::min(frame.size(), std::size_t{packet.network_offset} + packet.ip_length);
        const std::size_t at = packet.transport_offset;
        const std::size_t payload = packet.payload_offset;
        if (at + 20 > payload || payload > end)
            return std::nullopt;
        const auto* header = frame.data() + at;
        Segment segment{
            .sequence = get32(header + 4),
            .acknowledgment = get32(header + 8),
            .flags = get8(header + 13),
            .window = get16(header + 14),
            .data = {reinterpret_cast<const char*>(frame.data()) + payload, end - payload}};
        for (std::size_t i = at + 20; i < payload;) {
            const auto kind = get8(&frame[i]);
            if (kind == option_end)
                break;
            if (kind == option_nop) {
                ++i;
                continue;
            }
            if (i + 2 > payload)
                break;
            const std::size_t length = get8(&frame[i + 1]);
            if (length < 2 || i + length > payload)
                break;
            if (kind == option_mss && length == 4)
                segment.mss = get16(&frame[i + 2]);
            i += length;
        }
        return segment;
    }
};

TcpResponder::Connection* TcpResponder::find(const Tuple& tuple) noexcept {
    const auto found = std::ranges::find_if(connections_, [&](const Connection& connection) {
        return !connection.dead && connection.tuple == tuple;
    });
    return found == connections_.end() ? nullptr : &*found;
}

void TcpResponder::receive(const Packet& packet, std::span<const std::byte> frame,
                           Nanoseconds now) {
    const auto segment = Segment::parse(packet, frame);
    if (!segment || packet.is_fragment)
        return;
    if (auto* connection = find(packet.tuple)) {
        connection->peer_mac = packet.source_mac;
        advance(*connection, *segment, now);
    } else if (segment->has(tcp_flag::rst)) {
        return;
    } else if (segment->has(tcp_flag::syn) && !segment->has(tcp_flag::ack)) {
        open(packet, *segment, now);
    } else {
        refuse(packet, *segment);
    }
}

void TcpResponder::open(const Packet& packet, const Segment& segment, Nanoseconds now) {
    if (!make_room(now))
        return;
    const auto& tuple = packet.tuple;
    const auto fallback = tuple.source.family == Family::V4 ? default_mss4 : default_mss6;
    const auto largest = tuple.source.family == Family::V4 ? own_mss4 : own_mss6;
    Connection connection;
    connection.peer_mac = packet.source_mac;
    connection.tuple = tuple;
    connection.receive_next = segment.sequence + 1;
    connection.initial_sequence = new_sequence(tuple, now);
    connection.unacknowledged = connection.initial_sequence;
    connection.send_next = connection.initial_sequence;
    connection.send_max = connection.initial_sequence;
    connection.peer_window = segment.window;
    connection.mss = std::clamp(segment.mss == 0 ? fallback : segment.mss, smallest_mss, largest);
    connection.syn_pending = true;
    connection.last_heard = now;
    connections_.push_back(std::move(connection));
}

bool TcpResponder::make_room(Nanoseconds now) {
    std::erase_if(connections_, &Connection::dead);
    if (connections_.size() < max_connections)
        return true;
    const auto oldest = std::ranges::min_element(connections_, {}, &Connection::last_heard);
    if (oldest->last_heard + give_way_after > now)
        return false;
    connections_.erase(oldest);
    return true;
}

// RFC 9293, 3.5.2: a reset that the sender of this segment accepts.
void TcpResponder::refuse(const Packet& packet, const Segment& segment) {
    if (resets_.size() >= max_resets)
        return;
    Reset reset{.peer_mac = packet.source_mac, .tuple = packet.tuple};
    if (segment.has(tcp_flag::ack)) {
        reset.sequence = segment.acknowledgment;
    } else {
        reset.acknowledgment = segment.sequence + segment.length();
        reset.acknowledge = true;
    }
    resets_.push_back(reset);
}

void TcpResponder::advance(Connection& connection, const Segment& segment, Nanoseconds now) {
    const auto offset = segment.sequence - connection.receive_next;
    if (segment.has(tcp_flag::rst)) {
        // Only an exact one ends the connection (RFC 5961, 3.2); the guest may send it again.
        if (offset == 0)
            connection.dead = true;
        return;
    }
    connection.last_heard = now;
    if (segment.has(tcp_flag::syn)) {
        if (!connection.established && offset == 0xffffffff)
            connection.syn_pending = true;  // it did not see our SYN-ACK
        else
            connection.ack_pending = true;  // RFC 5961, 4.2
        return;
    }
    if (!segment.has(tcp_flag::ack) || !accept_acknowledgment(connection, segment, now))
        return;
    if (segment.length() != 0) {
        connection.ack_pending = true;
        // In order, or a repetition that brings something new at its end.
        if (!before(connection.receive_next, segment.sequence) &&
            before(connection.receive_next, segment.sequence + segment.length()))
            accept_data(connection, segment);
    }
    serve(connection, now);
    if (connection.fin_acknowledged && connection.peer_closed && !connection.ack_pending)
        connection.dead = true;
}

// False when the segment is of no further use.
bool TcpResponder::accept_acknowledgment(Connection& connection, const Segment& segment,
                                         Nanoseconds now) {
    if (before(connection.send_max, segment.acknowledgment)) {
        connection.ack_pending = true;  // for something never sent
        return false;
    }
    const bool is_new = before(connection.unacknowledged, segment.acknowledgment);
    if (!is_new && !connection.established)
        return false;
    if (!before(segment.acknowledgment, connection.unacknowledged))
        connection.peer_window = segment.window;
    if (!is_new)
        return true;
    if (!std::exchange(connection.established, true))
        ++connection.unacknowledged;  // the SYN
    const std::size_t bytes = segment.acknowledgment - connection.unacknowledged;
    // Behind the response there is only our FIN.
    connection.fin_acknowledged = connection.fin_acknowledged || bytes > connection.response.size();
    connection.response.erase(0, std::min(bytes, connection.response.size()));
    connection.unacknowledged = segment.acknowledgment;
    if (before(connection.send_next, connection.unacknowledged))
        connection.send_next = connection.unacknowledged;
    connection.retransmissions = 0;
    connection.retransmit_at.reset();
    if (connection.unacknowledged != connection.send_max)
        connection.retransmit_at = now + first_timeout;
    return true;
}

void TcpResponder::accept_data(Connection& connection, const Segment& segment) {
    const std::size_t skip = connection.receive_next - segment.sequence;
    if (connection.peer_closed || skip > segment.data.size())
        return;
    const auto fresh = segment.data.substr(skip);
    const auto taken = std::min(fresh.size(), receive_buffer - connection.received.size());
    connection.receive_next += static_cast<std::uint32_t>(taken);
    // What comes after we have said that we are done is acknowledged and dropped.
    if (!connection.fin_queued)
        connection.received.append(fresh.substr(0, taken));
    if (segment.has(tcp_flag::fin) && taken == fresh.size()) {
        ++connection.receive_next;
        connection.peer_closed = true;
    }
}

void TcpResponder::serve(Connection& connection, Nanoseconds now) {
    if (!connection.established)
        return;
    while (connection.response.empty() && !connection.fin_queued && !connection.received.empty()) {
        auto step = application_.serve(connection.tuple.source, connection.tuple.destination,
                                       connection.received, now);
        connection.received.erase(0, std::min(step.consumed, connection.received.size()));
        connection.response = std::move(step.response);
        connection.hop_limit = step.hop_limit;
        connection.fin_queued = step.close;
        if (step.consumed == 0) {
            // A request larger than the buffer can never be whole.
            if (connection.received.size() >= receive_buffer)
                connection.fin_queued = true;
            break;
        }
    }
    if (connection.peer_closed && connection.response.empty())
        connection.fin_queued = true;
    if (connection.fin_queued)
        connection.received.clear();
}

void TcpResponder::check_timers(Connection& connection, Nanoseconds now) {
    if (connection.last_heard + idle_timeout <= now) {
        if (resets_.size() < max_resets)
            resets_.push_back({.peer_mac = connection.peer_mac,
                               .tuple = connection.tuple,
                               .sequence = connection.send_next,
                               .acknowledgment = connection.receive_next,
                               .acknowledge = true});
        connection.dead = true;
        return;
    }
    if (!connection.retransmit_at || *connection.retransmit_at > now)
        return;
    connection.retransmit_at.reset();
    if (++connection.retransmissions > max_retransmissions) {
        connection.dead = true;
        return;
    }
    // Everything again, from the first byte that is not acknowledged.
    connection.send_next = connection.unacknowledged;
    connection.syn_pending = !connection.established;
    // A closed window is probed with one byte (3.8.6.1).
    if (connection.peer_window == 0 && !connection.response.empty())
        connection.peer_window = 1;
}

bool TcpResponder::send(Connection& connection, Bytes& out, Nanoseconds now) {
    const auto window = static_cast<std::uint16_t>(receive_buffer - connection.received.size());
    const auto arm = [&] {
        if (!connection.retransmit_at)
            connection.retransmit_at =
                now + (first_timeout << std::min(connection.retransmissions, 6U));
    };
    const auto put = [&](std::uint8_t flags, std::span<const std::byte> options,
                         std::string_view data) {
        write(connection.tuple, connection.peer_mac, connection.send_next, connection.receive_next,
              flags, window, connection.hop_limit, options, data, out);
        connection.ack_pending = false;
    };
    const auto sent_up_to = [&](std::uint32_t sequence) {
        connection.send_next = sequence;
        if (before(connection.send_max, sequence))
            connection.send_max = sequence;
        arm();
    };
    if (!connection.established) {
        if (!std::exchange(connection.syn_pending, false))
            return false;
        connection.send_next = connection.initial_sequence;
        Bytes mss;
        PacketWriter(mss)
            .u8(option_mss)
            .u8(4)
            .u16(connection.tuple.source.family == Family::V4 ? own_mss4 : own_mss6);
        put(tcp_flag::syn | tcp_flag::ack, mss, {});
        sent_up_to(connection.initial_sequence + 1);
        return true;
    }
    const std::size_t sent = connection.send_next - connection.unacknowledged;
    const auto whole = connection.response.size();
    const auto allowed = std::min<std::size_t>(connection.peer_window, whole);
    if (sent < allowed) {
        const auto size = std::min<std::size_t>(allowed - sent, connection.mss);
        put(tcp_flag::ack | psh, {}, std::string_view(connection.response).substr(sent, size));
        sent_up_to(connection.send_next + static_cast<std::uint32_t>(size));
        return true;
    }
    if (sent < whole)
        arm();  // the window is shut: probe it
    if (sent == whole && connection.fin_queued && !connection.fin_acknowledged) {
        put(tcp_flag::ack | tcp_flag::fin, {}, {});
        sent_up_to(connection.send_next + 1);
        return true;
    }
    if (!connection.ack_pending)
        return false;
    put(tcp_flag::ack, {}, {});
    // Both sides are done, and the last thing to say was this.
    if (connection.fin_acknowledged && connection.peer_closed)
        connection.dead = true;
    return true;
}

bool TcpResponder::next(Bytes& out, Nanoseconds now) {
    for (auto& connection : connections_)
        if (!connection.dead)
            check_timers(connection, now);
    if (!resets_.empty()) {
        const auto reset = resets_.front();
        resets_.pop_front();
        write(reset.tuple, reset.peer_mac, reset.sequence, reset.acknowledgment,
              reset.acknowledge ? tcp_flag::rst | tcp_flag::ack : tcp_flag::rst, 0, 64, {}, {},
              out);
        return true;
    }
    const auto count = connections_.size();
    for (std::size_t i = 0; i < count; ++i) {
        auto& connection = connections_[(turn_ + i) % count];
        if (!connection.dead && send(connection, out, now)) {
            turn_ = (turn_ + i + 1) % count;
            return true;
        }
    }
    std::erase_if(connections_, &Connection::dead);
    turn_ = 0;
    return false;
}

std::optional<Nanoseconds> TcpResponder::next_deadline() const noexcept {
    std::optional<Nanoseconds> first;
    for (const auto& connection : connections_) {
        if (connection.dead)
            continue;
        auto at = connection.last_heard + idle_timeout;
        if (connection.retransmit_at)
            at = std::min(at, *connection.retransmit_at);
        first = first ? std::min(*first, at) : at;
    }
    return first;
}

void TcpResponder::reset() noexcept {
    connections_.clear();
    resets_.clear();
    turn_ = 0;
}

void TcpResponder::write(const Tuple& tuple, const MacAddress& to, std::uint32_t sequence,
                         std::uint32_t acknowledgment, std::uint8_t flags, std::uint16_t window,
                         std::uint8_t hop_limit, std::span<const std::byte> options,
                         std::string_view data, Bytes& out) const {
    Bytes segment;
    segment.reserve(20 + options.size() + data.size());
    PacketWriter(segment)
        .u16(tuple.destination_port)
        .u16(tuple.source_port)
        .u32(sequence)
        .u32((flags & tcp_flag::ack) != 0 ? acknowledgment : 0)
        .u8(static_cast<unsigned>((20 + options.size()) / 4 << 4))
        .u8(flags)
        .u16(window)
        .u32(0)
        .bytes(options)
        .text(data);
    write_packet(out,
                 {.from_mac = mac_,
                  .to_mac = to,
                  .from = tuple.destination,
                  .to = tuple.source,
                  .hop_limit = hop_limit},
                 protocol_tcp, segment, 16);
}

// RFC 6528 in spirit: nobody but the guest itself is on this link.
std::uint32_t TcpResponder::new_sequence(const Tuple& tuple, Nanoseconds now) noexcept {
    seed_ = mix(seed_ + tuple.source_port + now);
    return static_cast<std::uint32_t>(seed_);
}

}  // namespace masu::net

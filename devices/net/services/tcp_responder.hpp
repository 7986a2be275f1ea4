// A TCP endpoint that only ever answers (RFC 9293, passive opens): small, bounded, without sockets.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "devices/net/firewall/packet.hpp"
#include "devices/net/services/packet_writer.hpp"

namespace masu::net {

// What serves the bytes of a connection: reads requests, gives responses.
class TcpApplication {
  public:
    struct Step {
        std::size_t consumed = 0;  // of `received`; 0 and no response: more bytes are needed
        std::string response;
        bool close = false;           // after the response
        std::uint8_t hop_limit = 64;  // of the packets that carry the response
    };
    virtual ~TcpApplication() = default;
    // `received` is what came in and was not consumed yet; called again as long as it consumes.
    // `peer` and `local` are the addresses of the connection.
    [[nodiscard]] virtual Step serve(const Address& peer, const Address& local,
                                     std::string_view received, Nanoseconds now) = 0;
};

// In-order receiving (a segment out of order is answered with what is expected, and comes again),
// one response at a time, go-back-N retransmission with exponential backoff. One thread; time is
// passed in.
//
// Bounds: connections, received bytes of each, and response bytes of each (the application's).
// When all connections are taken, the one that has been idle longest gives way, if it has been so
// for a second; else the SYN is not answered and the guest tries again.
class TcpResponder {
  public:
    static constexpr std::size_t max_connections = 32;
    static constexpr std::size_t receive_buffer = 16384;
    static constexpr std::size_t max_resets = 16;
    static constexpr std::uint16_t own_mss4 = 1460;
    static constexpr std::uint16_t own_mss6 = 1440;
    static constexpr Nanoseconds first_timeout = 300'000'000;
    static constexpr unsigned max_retransmissions = 7;
    static constexpr Nanoseconds idle_timeout = 60'000'000'000;
    static constexpr Nanoseconds give_way_after = 1'000'000'000;

    // `seed` makes initial sequence numbers unpredictable.
    TcpResponder(TcpApplication& application, MacAddress mac, std::uint64_t seed)
        : application_(application), mac_(mac), seed_(seed) {}

    // A TCP segment of the guest; `packet` is what the frame was parsed into.
    void receive(const Packet& packet, std::span<const std::byte> frame, Nanoseconds now);
    // Puts the next packet for the guest into `out`; false when there is none now.
    [[nodiscard]] bool next(Bytes& out, Nanoseconds now);
    [[nodiscard]] std::optional<Nanoseconds> next_deadline() const noexcept;
    void reset() noexcept;

    [[nodiscard]] std::size_t connections() const noexcept { return connections_.size(); }

  private:
    struct Segment;
    struct Connection {
        MacAddress peer_mac{};
        Tuple tuple;               // as the guest sends: source is the guest
        bool established = false;  // else SYN-RECEIVED
        std::uint32_t receive_next = 0;
        std::uint32_t initial_sequence = 0;
        std::uint32_t unacknowledged = 0;  // the oldest byte the guest has not acknowledged
        std::uint32_t send_next = 0;       // falls back to `unacknowledged` to send again
        std::uint32_t send_max = 0;        // behind all that was ever sent
        std::uint32_t peer_window = 0;
        std::uint16_t mss = 536;
        std::string received;
        std::string response;  // its first byte has sequence number `unacknowledged`
        std::uint8_t hop_limit = 64;
        bool peer_closed = false;  // its FIN came in
        bool fin_queued = false;   // ours follows the response; nothing more is served
        bool fin_acknowledged = false;
        bool syn_pending = false;  // SYN-ACK is to be sent
        bool ack_pending = false;
        bool dead = false;
        unsigned retransmissions = 0;
        std::optional<Nanoseconds> retransmit_at;
        Nanoseconds last_heard = 0;
    };
    struct Reset {
        MacAddress peer_mac{};
        Tuple tuple;
        std::uint32_t sequence = 0;
        std::uint32_t acknowledgment = 0;
        bool acknowledge = false;
    };

    [[nodiscard]] Connection* find(const Tuple& tuple) noexcept;
    void open(const Packet& packet, const Segment& segment, Nanoseconds now);
    [[nodiscard]] bool make_room(Nanoseconds now);
    void refuse(const Packet& packet, const Segment& segment);
    void advance(Connection& connection, const Segment& segment, Nanoseconds now);
    [[nodiscard]] bool accept_acknowledgment(Connection& connection, const Segment& segment,
                                             Nanoseconds now);
    void accept_data(Connection& connection, const Segment& segment);
    void serve(Connection& connection, Nanoseconds now);
    void check_timers(Connection& connection, Nanoseconds now);
    [[nodiscard]] bool send(Connection& connection, Bytes& out, Nanoseconds now);
    void write(const Tuple& tuple, const MacAddress& to, std::uint32_t sequence,
               std::uint32_t acknowledgment, std::uint8_t flags, std::uint16_t window,
               std::uint8_t hop_limit, std::span<const std::byte> options, std::string_view data,
               Bytes& out) const;
    [[nodiscard]] std::uint32_t new_sequence(const Tuple& tuple, Nanoseconds now) noexcept;

    TcpApplication& application_;
    const MacAddress mac_;
    std::uint64_t seed_;
    std::vector<Connection> connections_;
    std::deque<Reset> resets_;
    std::size_t turn_ = 0;  // the connection that sends next, for fairness
};

}  // namespace masu::net

// Flow logs of one interface: what passed and what did not, counted by flow over a window of time.
//
// The packet path only adds to a table in memory; whoever owns the log takes a window's records at
// its end, formats them (flow_log_format.hpp) and writes them (flow_log_file.hpp) off that path.
#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.hpp"
#include "devices/net/firewall/packet.hpp"
#include "devices/net/firewall/siphash.hpp"
#include "devices/net/firewall/verdict.hpp"

namespace masu::net {

// One flow in one direction over one window.
struct FlowRecord {
    Direction direction = Direction::Ingress;
    bool accepted = false;
    Tuple tuple;                 // the ports of ICMP are 0
    std::uint8_t tcp_flags = 0;  // of FIN, SYN, RST and SYN-ACK (as 18), OR-ed
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;  // IP header and payload
    Nanoseconds first = 0;
    Nanoseconds last = 0;
};

// One owning thread: the firewall's. A fixed number of flows a window; what finds no room is
// counted as skipped.
class FlowLog {
  public:
    static constexpr std::size_t max_records = 8192;

    explicit FlowLog(const SipKey& key);

    // Services that are never filtered are never logged either, and neither is what is no IP flow.
    void record(Direction direction, const Tuple& tuple, std::uint32_t ip_length,
                std::uint8_t tcp_flags, const Verdict& verdict, Nanoseconds now) noexcept;

    struct Window {
        std::vector<FlowRecord> records;
        std::uint64_t skipped = 0;  // packets that were not recorded
    };
    // Ends the window and begins the next.
    [[nodiscard]] Window take();

  private:
    static constexpr std::size_t capacity = 2 * max_records;
    [[nodiscard]] std::uint32_t* find(Direction direction, bool accepted,
                                      const Tuple& tuple) noexcept;

    SipKey key_;
    std::vector<std::uint32_t> index_;  // position in records_ plus 1; 0 is free
    std::vector<FlowRecord> records_;
    std::uint64_t skipped_ = 0;
};

}  // namespace masu::net

// The window's table.
#include "devices/net/flow_log.hpp"

#include <algorithm>

namespace masu::net {
namespace {

bool is_logged(Reason reason) noexcept {
    switch (reason) {
        case Reason::NeighborTraffic:
        case Reason::ExemptService:
        case Reason::LocalService:
        case Reason::NameRefused:
            return false;
        default:
            return true;
    }
}

// The flags that flow logs show; an ACK only beside a SYN.
std::uint8_t shown_flags(std::uint8_t flags) noexcept {
    using namespace tcp_flag;
    const auto shown = flags & (fin | syn | rst);
    return static_cast<std::uint8_t>((flags & syn) != 0 ? shown | (flags & ack) : shown);
}

}  // namespace

FlowLog::FlowLog(const SipKey& key) : key_(key), index_(capacity) {
    records_.reserve(max_records);
}

std::uint32_t* FlowLog::find(Direction direction, bool accepted, const Tuple& tuple) noexcept {
    SipHash<1, 3> sip(key_);
    sip.word(tuple.source.high).word(tuple.source.low);
    sip.word(tuple.destination.high).word(tuple.destination.low);
    const auto hash = sip.finish(static_cast<std::uint64_t>(tuple.source_port) |
                                 static_cast<std::uint64_t>(tuple.destination_port) << 16 |
                                 static_cast<std::uint64_t>(tuple.protocol) << 32 |
                                 static_cast<std::uint64_t>(std::to_underlying(direction)) << 40 |
                                 static_cast<std::uint64_t>(accepted) << 41);
    for (std::size_t i = 0;; ++i) {
        auto& place = index_[(hash + i) % capacity];
        if (place == 0)
            return &place;
        const auto& record = records_[place - 1];
        if (record.direction == direction && record.accepted == accepted && record.tuple == tuple)
            return &place;
    }
}

void FlowLog::record(Direction direction, const Tuple& tuple, std::uint32_t ip_length,
                     std::uint8_t tcp_flags, const Verdict& verdict, Nanoseconds now) noexcept {
    if (!is_logged(verdict.reason))
        return;
    const bool accepted = verdict.action == Action::Pass;
    // The identifier of a ping does not tell flows apart: ICMP has no ports in a flow log.
    Tuple shown = tuple;
    if (tuple.protocol == protocol::icmp || tuple.protocol == protocol::icmpv6)
        shown.source_port = shown.destination_port = 0;
    auto* place = find(direction, accepted, shown);
    if (*place == 0) {
        if (records_.size() == max_records) {
            ++skipped_;
            return;
        }
        records_.push_back(
            {.direction = direction, .accepted = accepted, .tuple = shown, .first = now});
        *place = static_cast<std::uint32_t>(records_.size());
    }
    auto& record = records_[*place - 1];
    ++record.packets;
    record.bytes += ip_length;
    record.tcp_flags |= shown_flags(tcp_flags);
    record.last = now;
}

auto FlowLog::take() -> Window {
    Window window{records_, std::exchange(skipped_, 0)};
    records_.clear();
    std::ranges::fill(index_, 0);
    return window;
}

}  // namespace masu::net

// What fragments of which datagrams have passed.
#include "devices/net/firewall/fragment_cache.hpp"

#include <algorithm>
#include <utility>

namespace masu::net {

// Keeps the covered stretches apart and in order. RFC 5722: an overlap ends the datagram.
bool FragmentCache::Datagram::add(const Fragment& fragment) noexcept {
    const std::uint32_t from = fragment.offset;
    const std::uint32_t to = from + fragment.length;
    const auto covered = std::span(ranges).first(range_count);
    const auto last = covered.empty() ? 0U : covered.back().to;
    if (!fragment.more && (end != 0 || last > to))
        return false;
    if (end != 0 && to > end)
        return false;
    std::size_t at = 0;
    while (at < covered.size() && covered[at].to <= from)
        ++at;
    if (at < covered.size() && covered[at].from < to)
        return false;
    if (!fragment.more)
        end = to;
    const bool joins_before = at > 0 && covered[at - 1].to == from;
    const bool joins_after = at < covered.size() && covered[at].from == to;
    if (joins_before && joins_after) {
        ranges[at - 1].to = ranges[at].to;
        std::shift_left(ranges.begin() + at, ranges.begin() + range_count, 1);
        --range_count;
    } else if (joins_before) {
        ranges[at - 1].to = to;
    } else if (joins_after) {
        ranges[at].from = from;
    } else {
        if (range_count == max_ranges)
            return false;
        std::shift_right(ranges.begin() + at, ranges.begin() + range_count + 1, 1);
        ranges[at] = {from, to};
        ++range_count;
    }
    return true;
}

bool FragmentCache::Datagram::complete() const noexcept {
    return end != 0 && range_count == 1 && ranges[0].from == 0 && ranges[0].to == end;
}

auto FragmentCache::set_of(Direction direction, const Packet& packet) noexcept -> Datagram* {
    const auto& tuple = packet.tuple;
    SipHash<1, 3> sip(key_);
    sip.word(tuple.source.high).word(tuple.source.low);
    sip.word(tuple.destination.high).word(tuple.destination.low);
    const auto hash = sip.finish(packet.fragment.id |
                                 static_cast<std::uint64_t>(std::to_underlying(direction)) << 32);
    return &datagrams_[(hash % sets) * ways];
}

// RFC 791: source, destination, protocol and identification name a datagram; RFC 8200 leaves the
// protocol out, since a later fragment cannot tell the last header of the chain.
auto FragmentCache::find(Direction direction, const Packet& packet, Nanoseconds now) noexcept
    -> Datagram* {
    auto* set = set_of(direction, packet);
    for (auto& datagram : std::span(set, ways)) {
        const auto& first = datagram.first;
        if (datagram.expires > now && datagram.id == packet.fragment.id &&
            datagram.direction == direction && first.source == packet.tuple.source &&
            first.destination == packet.tuple.destination &&
            (first.source.family == Family::V6 || first.protocol == packet.tuple.protocol))
            return &datagram;
    }
    return nullptr;
}

auto FragmentCache::follow(Direction direction, const Packet& packet, Nanoseconds now) noexcept
    -> Found {
    auto* datagram = find(direction, packet, now);
    if (datagram == nullptr)
        return {};
    if (datagram->poisoned || !datagram->add(packet.fragment)) {
        datagram->poisoned = true;
        return {.outcome = Outcome::Overlap, .first = datagram->first};
    }
    return {.outcome = Outcome::Follow, .first = datagram->first};
}

bool FragmentCache::may_begin(Direction direction, const Packet& packet, Nanoseconds now) noexcept {
    auto* datagram = find(direction, packet, now);
    if (datagram == nullptr)
        return true;
    // The sender's identification came round again.
    if (datagram->complete() && !datagram->poisoned) {
        datagram->expires = 0;
        return true;
    }
    datagram->poisoned = true;
    return false;
}

void FragmentCache::begin(Direction direction, const Packet& packet, Nanoseconds now) noexcept {
    auto* set = set_of(direction, packet);
    auto* place = &*std::ranges::min_element(std::span(set, ways), {}, &Datagram::expires);
    *place = {.direction = direction,
              .id = packet.fragment.id,
              .expires = now + lifetime,
              .first = packet.tuple};
    if (!place->add(packet.fragment))
        place->poisoned = true;
}

}  // namespace masu::net

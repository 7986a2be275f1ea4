// Datagrams in fragments: the first one is judged, the others follow its verdict. Nothing is
// reassembled; what each datagram's fragments cover is remembered so that none overlaps another.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "base/clock.hpp"
#include "devices/net/firewall/packet.hpp"
#include "devices/net/firewall/siphash.hpp"
#include "devices/net/firewall/verdict.hpp"

namespace masu::net {

// A fixed number of datagrams; a new one pushes out the one of its set that is oldest.
class FragmentCache {
  public:
    static constexpr Nanoseconds lifetime = 30'000'000'000;
    static constexpr std::size_t sets = 32;
    static constexpr std::size_t ways = 8;
    // Stretches of a datagram that lie apart; more than that is nobody's network.
    static constexpr std::size_t max_ranges = 8;

    explicit FragmentCache(const SipKey& key) : key_(key), datagrams_(sets * ways) {}

    enum class Outcome : std::uint8_t { Follow, WithoutFirst, Overlap };
    struct Found {
        Outcome outcome = Outcome::WithoutFirst;
        Tuple first;  // of the first fragment, ports and all; with Follow
    };
    // A later fragment (offset not 0): may it follow its first?
    [[nodiscard]] Found follow(Direction direction, const Packet& packet, Nanoseconds now) noexcept;

    // Before judging a first fragment: false when it contradicts one that is there already, which
    // ends that datagram.
    [[nodiscard]] bool may_begin(Direction direction, const Packet& packet,
                                 Nanoseconds now) noexcept;
    // Remembers a first fragment that passed.
    void begin(Direction direction, const Packet& packet, Nanoseconds now) noexcept;

  private:
    struct Range {
        std::uint32_t from;
        std::uint32_t to;
    };
    struct Datagram {
        Direction direction = Direction::Ingress;
        bool poisoned = false;
        std::uint8_t range_count = 0;
        std::uint32_t id = 0;
        std::uint32_t end = 0;  // known once the last fragment was seen, else 0
        Nanoseconds expires = 0;
        Tuple first;
        std::array<Range, max_ranges> ranges{};

        [[nodiscard]] bool add(const Fragment& fragment) noexcept;
        [[nodiscard]] bool complete() const noexcept;
    };
    [[nodiscard]] Datagram* set_of(Direction direction, const Packet& packet) noexcept;
    [[nodiscard]] Datagram* find(Direction direction, const Packet& packet,
                                 Nanoseconds now) noexcept;

    SipKey key_;
    std::vector<Datagram> datagrams_;
};

}  // namespace masu::net

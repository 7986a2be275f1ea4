// The host's side of a network device for tests: a backend in memory, and frames to put into it.
#pragma once

#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/fd.hpp"
#include "devices/net/backend.hpp"
#include "devices/net/frame.hpp"
#include "devices/net/frame_filter.hpp"

namespace masu::net::fake {

using Bytes = std::vector<std::byte>;

inline Bytes operator+(Bytes left, const Bytes& right) {
    left.insert(left.end(), right.begin(), right.end());
    return left;
}
template <class T>
Bytes bytes_of(const T& value) {
    const auto bytes = as_bytes_of(value);
    return {bytes.begin(), bytes.end()};
}
inline Bytes be16(std::uint16_t value) {
    Bytes bytes(2);
    put16(bytes.data(), value);
    return bytes;
}
inline Bytes be32(std::uint32_t value) {
    Bytes bytes(4);
    put32(bytes.data(), value);
    return bytes;
}
inline Bytes text(std::string_view characters) {
    const auto bytes = std::as_bytes(std::span(characters));
    return {bytes.begin(), bytes.end()};
}

inline constexpr MacAddress guest_mac{0x06, 0, 0, 0, 0, 1};
inline constexpr MacAddress other_mac{0x06, 0, 0, 0, 0, 2};

inline Bytes ethernet(const MacAddress& to, const MacAddress& from, std::uint16_t type) {
    return bytes_of(to) + bytes_of(from) + be16(type);
}
// An IPv4 header with a right checksum.
inline Bytes ipv4(std::uint8_t protocol, std::uint32_t from, std::uint32_t to,
                  std::size_t payload) {
    auto header = be16(0x4500) + be16(static_cast<std::uint16_t>(20 + payload)) + be32(0) +
                  be16(static_cast<std::uint16_t>(64 << 8 | protocol)) + be16(0) + be32(from) +
                  be32(to);
    put16(&header[10], checksum_finish(checksum_add(0, header)));
    return header;
}
inline Bytes ports(std::uint16_t from, std::uint16_t to) {
    return be16(from) + be16(to);
}
inline Bytes udp_frame(std::size_t payload) {
    return ethernet(other_mac, guest_mac, ethertype_ipv4) +
           ipv4(protocol_udp, 0x0a000001, 0x0a000002, 8 + payload) + ports(1000, 2000) +
           be16(static_cast<std::uint16_t>(8 + payload)) + be16(0) +
           Bytes(payload, std::byte{0x5a});
}
inline Bytes tcp_frame(std::size_t payload) {
    return ethernet(other_mac, guest_mac, ethertype_ipv4) +
           ipv4(protocol_tcp, 0x0a000001, 0x0a000002, 20 + payload) + ports(1000, 2000) + be32(1) +
           be32(2) + be16(0x5010) + be16(1000) + be32(0) + Bytes(payload, std::byte{0x5b});
}

// Several queues of frames; what the guest sent is kept.
class FakeBackend final : public Backend {
  public:
    struct Sent {
        unsigned queue;
        NetHeader header;
        Bytes frame;
        std::size_t pieces;
    };

    explicit FakeBackend(unsigned queues = 1) : incoming(queues) {
        for (unsigned i = 0; i < queues; ++i)
            descriptors_.emplace_back(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    }

    void put(const Bytes& frame, unsigned queue = 0, const NetHeader& header = {}) {
        incoming[queue].push_back(bytes_of(header) + frame);
        const std::uint64_t one = 1;
        [[maybe_unused]] const auto written = ::write(fd(queue), &one, sizeof one);
    }

    [[nodiscard]] unsigned queues() const noexcept override {
        return static_cast<unsigned>(incoming.size());
    }
    [[nodiscard]] int fd(unsigned queue) const noexcept override {
        return descriptors_[queue].get();
    }
    [[nodiscard]] Offloads offloads() const noexcept override { return can; }
    void set_receive_offloads(Offloads wanted) noexcept override { receive_offloads = wanted; }
    void set_active_queues(unsigned count) noexcept override { active = count; }
    [[nodiscard]] Received receive(unsigned queue, std::span<std::byte> buffer) noexcept override {
        if (closed)
            return {IoStatus::Closed, 0};
        auto& waiting = incoming[queue];
        if (waiting.empty()) {
            std::uint64_t count = 0;
            [[maybe_unused]] const auto got = ::read(fd(queue), &count, sizeof count);
            return {IoStatus::Again, 0};
        }
        const auto packet = std::move(waiting.front());
        waiting.pop_front();
        std::ranges::copy(packet, buffer.begin());
        return {IoStatus::Done, packet.size()};
    }
    [[nodiscard]] bool can_send(unsigned /*queue*/) noexcept override { return room > 0; }
    [[nodiscard]] IoStatus send(unsigned queue, std::span<const iovec> packet) noexcept override {
        Sent one{.queue = queue, .header = {}, .frame = {}, .pieces = packet.size()};
        std::memcpy(&one.header, packet[0].iov_base, sizeof one.header);
        for (const auto& piece : packet.subspan(1)) {
            const auto* from = static_cast<const std::byte*>(piece.iov_base);
            one.frame.insert(one.frame.end(), from, from + piece.iov_len);
        }
        sent.push_back(std::move(one));
        --room;
        return IoStatus::Done;
    }
    [[nodiscard]] bool flush(unsigned /*queue*/) noexcept override { return room > 0; }

    std::vector<std::deque<Bytes>> incoming;
    std::vector<Sent> sent;
    Offloads can = offload::csum | offload::tso4 | offload::tso6 | offload::ecn | offload::ufo;
    Offloads receive_offloads = 0;
    unsigned active = 0;
    int room = 1 << 20;
    bool closed = false;

  private:
    std::vector<Fd> descriptors_;
};

// Says what a test told it to, and remembers what it was shown.
class FakeFilter final : public FrameFilter {
  public:
    [[nodiscard]] Action judge(Direction direction, const Frame& frame,
                               Nanoseconds /*now*/) noexcept override {
        seen.push_back({direction, Bytes(frame.bytes.begin(), frame.bytes.end()), frame.length});
        if (during)
            during();
        const auto verdict = direction == Direction::Egress ? egress : ingress;
        if (verdict == Action::NeedWholeFrame && frame.bytes.size() == frame.length)
            return Action::Pass;
        return verdict;
    }
    void prepare(std::size_t place, Direction /*direction*/, const Frame& frame) noexcept override {
        prepared.at(place) = Bytes(frame.bytes.begin(), frame.bytes.end());
        most_prepared = std::max(most_prepared, place + 1);
    }
    [[nodiscard]] Action judge_prepared(std::size_t place, Direction direction, const Frame& frame,
                                        Nanoseconds now) noexcept override {
        if (!std::ranges::equal(prepared.at(place), frame.bytes))
            ++unprepared;
        return judge(direction, frame, now);
    }
    [[nodiscard]] std::span<const std::byte> answer() const noexcept override { return reply; }

    struct Seen {
        Direction direction;
        Bytes bytes;
        std::uint32_t length;
    };
    Action egress = Action::Pass;
    Action ingress = Action::Pass;
    std::vector<Seen> seen;
    std::function<void()> during;  // what the guest does while its frame is being judged
    Bytes reply;
    std::array<Bytes, max_burst> prepared;
    std::size_t most_prepared = 0;
    std::size_t unprepared = 0;  // frames that were not the ones prepared for their places
};

}  // namespace masu::net::fake

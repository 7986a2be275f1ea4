// The TCP responder: connections of polite, hasty, lossy and hostile guests.
#include "devices/net/services/tcp_responder.hpp"

#include <doctest/doctest.h>

#include "tests/unit/devices/net/guest_tcp.hpp"

namespace masu::net {
namespace {

using namespace fake;
using namespace tcp_flag;

constexpr Nanoseconds millisecond = 1'000'000;

// Requests are lines; each is answered with `answer`, "bye" with a close.
class LineServer final : public TcpApplication {
  public:
    Step serve(const Address& /*peer*/, const Address& /*local*/, std::string_view received,
               Nanoseconds /*now*/) override {
        const auto end = received.find('\n');
        if (end == std::string_view::npos)
            return {};
        lines.emplace_back(received.substr(0, end));
        return {.consumed = end + 1,
                .response = answer,
                .close = lines.back() == "bye",
                .hop_limit = 3};
    }
    std::string answer = "hello\n";
    std::vector<std::string> lines;
};

struct Rig {
    LineServer server;
    TcpResponder tcp{server, {6, 1, 0x23, 0x45, 0x67, 1}, 1};
    Nanoseconds now = 1'000'000'000;

    void give(const TcpPacket& packet, std::uint16_t port = 5000) {
        const auto frame = tcp_bytes(packet, port);
        const auto parsed = read_packet(frame);
        REQUIRE(parsed);
        tcp.receive(*parsed, frame, now);
    }
    std::vector<TcpPacket> take() {
        std::vector<TcpPacket> packets;
        Bytes frame;
        while (tcp.next(frame, now)) {
            packets.push_back(read_tcp(frame));
            REQUIRE(packets.size() < 1000);
        }
        return packets;
    }
    TcpPacket take_one() {
        const auto packets = take();
        REQUIRE(packets.size() == 1);
        return packets[0];
    }
    // The three-way handshake; the sequence number of the responder's first byte.
    std::uint32_t open(std::uint16_t port = 5000, std::uint16_t window = 65535) {
        give({.sequence = 99, .flags = syn, .window = window}, port);
        const auto answer = take_one();
        CHECK(answer.flags == (syn | ack));
        CHECK(answer.acknowledgment == 100);
        give({.sequence = 100,
              .acknowledgment = answer.sequence + 1,
              .flags = ack,
              .window = window},
             port);
        CHECK(take().empty());
        return answer.sequence + 1;
    }
};

}  // namespace

TEST_CASE("a request is answered, and the connection closed by the guest") {
    Rig rig;
    const auto at = rig.open();
    rig.give({.sequence = 100, .acknowledgment = at, .flags = ack, .data = "hi\n"});
    auto answer = rig.take_one();
    CHECK(answer.data == "hello\n");
    CHECK(answer.acknowledgment == 103);
    CHECK(answer.hop_limit == 3);
    rig.give({.sequence = 103, .acknowledgment = at + 6, .flags = ack | fin});
    answer = rig.take_one();
    CHECK(answer.flags == (fin | ack));
    CHECK(answer.acknowledgment == 104);
    rig.give({.sequence = 104, .acknowledgment = at + 7, .flags = ack});
    CHECK(rig.take().empty());
    CHECK(rig.tcp.connections() == 0);
}

TEST_CASE("the responder closes where the application says so") {
    Rig rig;
    const auto at = rig.open();
    rig.give({.sequence = 100, .acknowledgment = at, .flags = ack, .data = "bye\n"});
    auto packets = rig.take();
    REQUIRE(packets.size() == 2);
    CHECK(packets[0].data == "hello\n");
    CHECK(packets[1].flags == (fin | ack));
    rig.give({.sequence = 104, .acknowledgment = at + 7, .flags = ack});
    rig.give({.sequence = 104, .acknowledgment = at + 7, .flags = ack | fin});
    CHECK(rig.take_one().acknowledgment == 105);
    CHECK(rig.tcp.connections() == 0);
}

TEST_CASE("requests in pieces and in one go are the same") {
    Rig rig;
    auto at = rig.open();
    for (const char* piece : {"a", "b", "\nc\nd", "\n"}) {
        static std::uint32_t sequence;
        if (*piece == 'a')
            sequence = 100;
        rig.give({.sequence = sequence, .acknowledgment = at, .flags = ack, .data = piece});
        sequence += static_cast<std::uint32_t>(std::strlen(piece));
        for (const auto& packet : rig.take())
            at += static_cast<std::uint32_t>(packet.data.size());
    }
    rig.give({.sequence = 107, .acknowledgment = at, .flags = ack});
    at += 6 * static_cast<std::uint32_t>(rig.take().size());
    rig.give({.sequence = 107, .acknowledgment = at, .flags = ack});
    rig.take();
    CHECK(rig.server.lines == std::vector<std::string>{"ab", "c", "d"});
}

TEST_CASE("a large answer keeps to the guest's window and segment size") {
    Rig rig;
    rig.server.answer = std::string(10'000, 'x');
    const auto at = rig.open(5000, 3000);
    rig.give({.sequence = 100, .acknowledgment = at, .flags = ack, .window = 3000, .data = "hi\n"});
    std::string received;
    for (int round = 0; round < 20 && received.size() < 10'000; ++round) {
        const auto packets = rig.take();
        std::size_t in_flight = 0;
        for (const auto& packet : packets) {
            CHECK(packet.data.size() <= 536);  // no MSS option was sent
            CHECK(packet.sequence == at + received.size());
            received += packet.data;
            in_flight += packet.data.size();
        }
        CHECK(in_flight <= 3000);
        rig.give({.sequence = 103,
                  .acknowledgment = at + static_cast<std::uint32_t>(received.size()),
                  .flags = ack,
                  .window = 3000});
    }
    CHECK(received == rig.server.answer);
}

TEST_CASE("a shut window is probed, and opens") {
    Rig rig;
    const auto at = rig.open(5000, 0);
    rig.give({.sequence = 100, .acknowledgment = at, .flags = ack, .window = 0, .data = "hi\n"});
    CHECK(rig.take_one().data.empty());
    REQUIRE(rig.tcp.next_deadline());
    rig.now = *rig.tcp.next_deadline();
    CHECK(rig.take_one().data == "h");
    rig.give({.sequence = 103, .acknowledgment = at, .flags = ack, .window = 100});
    std::string rest;
    for (const auto& packet : rig.take())
        rest += packet.data;
    CHECK(rest == "ello\n");
}

TEST_CASE("what is lost is sent again, later and later, and not for ever") {
    Rig rig;
    const auto at = rig.open();
    rig.give({.sequence = 100, .acknowledgment = at, .flags = ack, .data = "hi\n"});
    CHECK(rig.take_one().data == "hello\n");
    Nanoseconds last = 0;
    for (unsigned i = 0; i < TcpResponder::max_retransmissions; ++i) {
        CHECK(rig.take().empty());
        const auto wait = *rig.tcp.next_deadline() - rig.now;
        CHECK(wait >= last);
        last = wait;
        rig.now += wait;
        if (rig.now > 1'000'000'000 + TcpResponder::idle_timeout)
            break;
        CHECK(rig.take_one().data == "hello\n");
    }
    rig.now += 200'000 * millisecond;
    rig.take();
    CHECK(rig.tcp.connections() == 0);
}

TEST_CASE("the SYN-ACK is repeated for a repeated SYN and on time-out") {
    Rig rig;
    rig.give({.sequence = 99, .flags = syn});
    const auto first = rig.take_one();
    rig.give({.sequence = 99, .flags = syn});
    CHECK(rig.take_one().sequence == first.sequence);
    rig.now = *rig.tcp.next_deadline();
    CHECK(rig.take_one().flags == (syn | ack));
    CHECK(rig.tcp.connections() == 1);
}

TEST_CASE("segments out of order, repeated and overlapping come out as one stream") {
    Rig rig;
    const auto at = rig.open();
    rig.give({.sequence = 105, .acknowledgment = at, .flags = ack, .data = "fgh\n"});
    CHECK(rig.take_one().acknowledgment == 100);  // what is missing
    rig.give({.sequence = 100, .acknowledgment = at, .flags = ack, .data = "abc"});
    CHECK(rig.take_one().acknowledgment == 103);
    rig.give({.sequence = 101, .acknowledgment = at, .flags = ack, .data = "bcde"});
    CHECK(rig.take_one().acknowledgment == 105);
    rig.give({.sequence = 100, .acknowledgment = at, .flags = ack, .data = "abc"});
    CHECK(rig.take_one().acknowledgment == 105);
    rig.give({.sequence = 105, .acknowledgment = at, .flags = ack, .data = "fgh\n"});
    rig.take();
    CHECK(rig.server.lines == std::vector<std::string>{"abcdefgh"});
}

TEST_CASE("a lossy, reordering link delivers everything once") {
    for (unsigned seed = 1; seed <= 20; ++seed) {
        std::mt19937 random(seed);
        Rig rig;
        for (std::size_t i = 0; i < 40'000; ++i)
            rig.server.answer += static_cast<char>('a' + i % 26);
        std::string received;
        std::uint32_t first = 0;
        bool open = false;
        std::map<std::uint32_t, std::string> early;
        for (int round = 0; round < 4000 && received.size() < rig.server.answer.size(); ++round) {
            if (!open)
                rig.give({.sequence = 99, .flags = syn});
            else
                rig.give({.sequence = rig.server.lines.empty() ? 100U : 103U,
                          .acknowledgment = first + static_cast<std::uint32_t>(received.size()),
                          .flags = ack,
                          .window = 8000,
                          .data = rig.server.lines.empty() ? "hi\n" : ""});
            auto packets = rig.take();
            std::shuffle(packets.begin(), packets.end(), random);
            for (const auto& packet : packets) {
                if (random() % 4 == 0)
                    continue;  // lost
                if (packet.has(syn)) {
                    first = packet.sequence + 1;
                    open = true;
                } else if (!packet.data.empty()) {
                    early[packet.sequence - first] = packet.data;
                }
            }
            for (const auto& [offset, data] : early)
                if (offset <= received.size() && offset + data.size() > received.size())
                    received += data.substr(received.size() - offset);
            rig.now += 50 * millisecond;
        }
        CHECK(received == rig.server.answer);
    }
}

TEST_CASE("segments of no connection are refused, resets are not answered") {
    Rig rig;
    rig.give({.sequence = 5, .acknowledgment = 77, .flags = ack, .data = "x"});
    auto reset = rig.take_one();
    CHECK(reset.flags == rst);
    CHECK(reset.sequence == 77);
    rig.give({.sequence = 5, .flags = fin, .data = "x"});
    reset = rig.take_one();
    CHECK(reset.flags == (rst | ack));
    CHECK(reset.acknowledgment == 7);
    rig.give({.sequence = 5, .flags = rst});
    CHECK(rig.take().empty());
}

TEST_CASE("only an exact reset ends a connection") {
    Rig rig;
    rig.open();
    rig.give({.sequence = 200, .flags = rst});
    CHECK(rig.tcp.connections() == 1);
    rig.give({.sequence = 100, .flags = rst});
    rig.take();
    CHECK(rig.tcp.connections() == 0);
}

TEST_CASE("a SYN flood leaves the connections that live alone") {
    Rig rig;
    const auto at = rig.open(1);
    for (std::uint16_t port = 100; port < 400; ++port)
        rig.give({.sequence = 99, .flags = syn}, port);
    rig.take();
    CHECK(rig.tcp.connections() == TcpResponder::max_connections);
    rig.give({.sequence = 100, .acknowledgment = at, .flags = ack, .data = "hi\n"}, 1);
    bool answered = false;
    for (const auto& packet : rig.take())
        answered = answered || packet.data == "hello\n";
    CHECK(answered);
    // After a second the idle ones give way.
    rig.now += 1100 * millisecond;
    rig.take();
    rig.open(4000);
}

TEST_CASE("a request that never ends is cut off") {
    Rig rig;
    const auto at = rig.open();
    std::uint32_t sequence = 100;
    bool closed = false;
    for (int i = 0; i < 100 && !closed; ++i) {
        rig.give({.sequence = sequence,
                  .acknowledgment = at,
                  .flags = ack,
                  .data = std::string(1000, 'x')});
        for (const auto& packet : rig.take()) {
            closed = closed || packet.has(fin);
            sequence = packet.acknowledgment;
        }
    }
    CHECK(closed);
    CHECK(sequence - 100 <= TcpResponder::receive_buffer);
}

TEST_CASE("an idle connection ends with a reset") {
    Rig rig;
    rig.open();
    rig.now += TcpResponder::idle_timeout;
    CHECK(rig.take_one().has(rst));
    CHECK(rig.tcp.connections() == 0);
    CHECK_FALSE(rig.tcp.next_deadline());
}

}  // namespace masu::net

// Frames that the guest sends, of polite and rude drivers.
#include "devices/net/virtio_net.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "tests/unit/devices/net/virtio_net_rig.hpp"

namespace masu::net {

using namespace fake;

TEST_CASE("a frame of the guest reaches the backend as it was") {
    Rig rig;
    const auto frame = udp_frame(100);
    rig.send(frame);
    REQUIRE(rig.backend.sent.size() == 1);
    CHECK(rig.backend.sent[0].frame == frame);
    CHECK(rig.backend.sent[0].header == NetHeader());
    CHECK(rig.tx().take_used()->length == 0);
    CHECK(rig.count("tx_packets") == 1);
    CHECK(rig.count("tx_bytes") == frame.size());
    CHECK(rig.filter.seen[0].bytes == frame);
}

TEST_CASE("what was judged is what is sent, whatever the guest writes meanwhile") {
    Rig rig;
    const auto frame = udp_frame(100);
    const auto built =
        rig.tx().chain().append_readable(bytes_of(NetHeader())).append_readable(frame).build();
    rig.filter.during = [&] {
        for (std::size_t i = 0; i < frame.size(); ++i)
            rig.memory.put(built.readable[1].address + i, std::byte{0xff});
    };
    rig.notify(1);
    REQUIRE(rig.backend.sent.size() == 1);
    CHECK(rig.backend.sent[0].frame == frame);
}

TEST_CASE("a large segmented frame goes out whole, its payload from guest memory") {
    Rig rig;
    const auto frame = tcp_frame(60'000);
    rig.send(frame, tso(1));
    REQUIRE(rig.backend.sent.size() == 1);
    const auto& sent = rig.backend.sent[0];
    CHECK(sent.frame == frame);
    CHECK(sent.pieces == 3);
    CHECK(sent.header.gso_type == gso_tcpv4);
    CHECK(sent.header.hdr_len == 54);  // ours, not the driver's
    CHECK(sent.header.gso_size == 1448);
    CHECK(rig.filter.seen[0].bytes.size() == 2048);
    CHECK(rig.filter.seen[0].length == frame.size());
}

TEST_CASE("a frame in more pieces than writev takes is copied") {
    Rig rig;
    const auto frame = tcp_frame(10'000);
    auto chain = rig.tx().chain();
    chain.indirect().append_readable(bytes_of(tso(54)));
    for (std::size_t at = 0; at < frame.size(); at += 10)
        chain.append_readable(
            std::span(frame).subspan(at, std::min<std::size_t>(10, frame.size() - at)));
    chain.build();
    rig.notify(1);
    CHECK(rig.driver.faults.empty());
    REQUIRE(rig.backend.sent.size() == 1);
    CHECK(rig.backend.sent[0].frame == frame);
}

TEST_CASE("offload fields that do not fit the frame are refused") {
    const auto frame = tcp_frame(3000);
    const auto refused = [&](auto change) {
        Rig rig;
        auto header = tso(54);
        change(header);
        rig.send(frame, header);
        CHECK(rig.tx().take_used());
        CHECK(rig.driver.faults.empty());
        return rig.backend.sent.empty() && rig.count("tx_malformed") == 1;
    };
    CHECK_FALSE(refused([](NetHeader&) {}));
    CHECK(refused([](NetHeader& h) { h.gso_size = 0; }));
    CHECK(refused([](NetHeader& h) { h.gso_type = gso_tcpv6; }));
    CHECK(refused([](NetHeader& h) { h.gso_type = gso_udp; }));
    CHECK(refused([](NetHeader& h) { h.gso_type = gso_udp_l4; }));  // not offered
    CHECK(refused([](NetHeader& h) { h.gso_type = 77; }));
    CHECK(refused([](NetHeader& h) { h.flags = 0; }));
    CHECK(refused([](NetHeader& h) { h.csum_start = 26; }));  // lands on an address
    CHECK(refused([](NetHeader& h) { h.csum_offset = 2; }));  // lands on a port
    CHECK(refused([](NetHeader& h) { h.csum_start = 0xffff; }));
    CHECK(refused([](NetHeader& h) { h.csum_offset = 0xffff; }));
    Rig without(1, {}, feature::csum);
    without.send(frame, tso(54));
    CHECK(without.backend.sent.empty());
}

TEST_CASE("a checksum that is not the frame's own is finished before the frame is judged") {
    Rig rig;
    const auto frame = udp_frame(100);
    // It would land on the destination port.
    rig.send(frame, {.flags = hdr_f_needs_csum, .csum_start = 34, .csum_offset = 2});
    REQUIRE(rig.backend.sent.size() == 1);
    CHECK(rig.backend.sent[0].header == NetHeader());
    CHECK(rig.filter.seen[0].bytes == rig.backend.sent[0].frame);
    CHECK(get16(&rig.filter.seen[0].bytes[36]) ==
          checksum_finish(checksum_add(0, std::span(frame).subspan(34))));
}

TEST_CASE("frames of impossible sizes are dropped") {
    Rig rig;
    rig.send(Bytes(13));
    rig.send(Bytes(max_frame_size + 1));
    rig.tx().chain().append_readable(Bytes(11)).build();
    rig.tx().chain().append_writable(100).build();
    rig.notify(1);
    CHECK(rig.backend.sent.empty());
    CHECK(rig.count("tx_malformed") == 4);
    for (int i = 0; i < 4; ++i)
        CHECK(rig.tx().take_used());
    rig.send(Bytes(max_frame_size));
    CHECK(rig.backend.sent.size() == 1);
}

TEST_CASE("the filter's verdicts are kept to") {
    Rig rig;
    rig.give_buffer(2000);
    rig.filter.egress = Action::Drop;
    rig.send(udp_frame(10));
    rig.filter.egress = Action::Local;
    rig.send(udp_frame(10));
    CHECK(rig.backend.sent.empty());
    CHECK(rig.count("tx_denied") == 1);

    rig.filter.egress = Action::NeedWholeFrame;
    rig.send(udp_frame(4000));
    CHECK(rig.filter.seen.back().bytes == udp_frame(4000));
    CHECK(rig.backend.sent.size() == 1);
    rig.send(udp_frame(20'000));  // more than it looks at
    CHECK(rig.backend.sent.size() == 1);
    CHECK(rig.count("tx_denied") == 2);

    rig.filter.egress = Action::Answer;
    rig.filter.reply = udp_frame(30);
    rig.send(udp_frame(10));
    CHECK(rig.backend.sent.size() == 1);
    CHECK(rig.rx().take_used()->length == sizeof(NetHeader) + udp_frame(30).size());

    rig.filter.ingress = Action::Drop;
    rig.backend.put(udp_frame(10));
    rig.run();
    CHECK(rig.count("rx_denied") == 1);
    CHECK(rig.count("rx_packets") == 0);
}

TEST_CASE("a backend without room stops the queue and does not lose a frame") {
    Rig rig;
    rig.backend.room = 2;
    for (std::size_t i = 0; i < 5; ++i)
        rig.send(udp_frame(10 + i));
    CHECK(rig.backend.sent.size() == 2);
    rig.backend.room = 100;
    rig.run();  // the descriptor is writable
    REQUIRE(rig.backend.sent.size() == 5);
    for (std::size_t i = 0; i < 5; ++i)
        CHECK(rig.backend.sent[i].frame == udp_frame(10 + i));
}

TEST_CASE(
    "a batch is prepared together, judged and sent in its order, and what must wait goes back") {
    Rig rig;
    constexpr std::size_t count = 40;
    std::vector<Bytes> expected;
    for (std::size_t i = 0; i < count; ++i) {
        // Among them a frame that is none, and a checksum that is finished before the verdict.
        auto frame = udp_frame(100 + i);
        NetHeader header;
        if (i % 10 == 3)
            frame.resize(5);
        if (i % 10 == 7)
            header = {.flags = hdr_f_needs_csum, .csum_start = 42, .csum_offset = 40};
        rig.tx().chain().append_readable(bytes_of(header)).append_readable(frame).build();
        if (i % 10 != 3)
            expected.push_back(frame);
    }
    rig.backend.room = 21;
    rig.notify(1);
    CHECK(rig.backend.sent.size() == 21);
    CHECK(rig.filter.seen.size() == 21);  // nobody is judged before his turn
    CHECK(rig.filter.most_prepared == FrameFilter::max_burst);
    CHECK(rig.filter.unprepared == 0);
    rig.backend.room = 100;
    rig.run();
    REQUIRE(rig.backend.sent.size() == expected.size());
    CHECK(rig.filter.seen.size() == expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
        CHECK(rig.backend.sent[i].frame.size() == expected[i].size());
        CHECK(std::ranges::equal(std::span(rig.backend.sent[i].frame).first(42),
                                 std::span(expected[i]).first(42)));
    }
    CHECK(rig.count("tx_malformed") == 4);
    std::size_t used = 0;
    while (rig.tx().take_used())
        ++used;
    CHECK(used == count);
}

TEST_CASE("frames before a broken place of the ring are sent") {
    Rig rig;
    for (std::size_t i = 0; i < 3; ++i)
        rig.tx()
            .chain()
            .append_readable(bytes_of(NetHeader()))
            .append_readable(udp_frame(10 + i))
            .build();
    rig.tx().chain().append_raw(rig.memory.end(), 100, 0).build();
    rig.notify(1);
    CHECK(rig.backend.sent.size() == 3);
    CHECK(rig.driver.faults.size() == 1);
}

}  // namespace masu::net

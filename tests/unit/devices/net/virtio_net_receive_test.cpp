// Frames that the guest receives, and what shares its time and rate with them.
#include "devices/net/virtio_net.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "tests/unit/devices/net/virtio_net_rig.hpp"

namespace masu::net {

using namespace fake;

TEST_CASE("a frame from outside goes into the driver's buffer") {
    Rig rig;
    const auto buffer = rig.give_buffer(2000);
    rig.notify(0);
    const auto frame = udp_frame(100);
    rig.backend.put(frame);
    rig.run();
    const auto used = rig.rx().take_used();
    REQUIRE(used);
    CHECK(used->length == sizeof(NetHeader) + frame.size());
    const auto written = rig.rx().written(buffer);
    CHECK(load_unaligned<NetHeader>(written.data()) == NetHeader{.num_buffers = 1});
    CHECK(std::ranges::equal(std::span(written).subspan(12, frame.size()), frame));
    CHECK(rig.driver.interrupts == std::vector<std::uint16_t>{0});
}

TEST_CASE("a large frame is merged over several buffers, and waits until there are enough") {
    Rig rig;
    std::vector<virtio::fake::Built> buffers;
    buffers.push_back(rig.give_buffer(1500));
    buffers.push_back(rig.give_buffer(1500));
    const auto frame = tcp_frame(5000);
    rig.backend.put(frame, 0, tso(54));
    rig.run();
    CHECK_FALSE(rig.rx().take_used());
    // The driver need not notify before it has given more than what was too little.
    CHECK(rig.rx().avail_event() == 2);
    buffers.push_back(rig.give_buffer(1500));
    rig.notify(0);
    CHECK_FALSE(rig.rx().take_used());
    buffers.push_back(rig.give_buffer(1500));
    rig.notify(0);
    Bytes all;
    for (const auto& buffer : buffers) {
        const auto used = rig.rx().take_used();
        REQUIRE(used);
        CHECK(used->id == buffer.head);
        const auto part = rig.rx().written(buffer);
        all.insert(all.end(), part.begin(), part.begin() + used->length);
    }
    auto header = tso(54);
    header.num_buffers = 4;
    CHECK(load_unaligned<NetHeader>(all.data()) == header);
    CHECK(std::ranges::equal(std::span(all).subspan(12), frame));
}

TEST_CASE("without mergeable buffers a frame that does not fit is dropped, and the next is not") {
    Rig rig(1, {}, feature::mrg_rxbuf);
    rig.give_buffer(1000);
    rig.backend.put(udp_frame(2000));
    rig.backend.put(udp_frame(100));
    rig.run();
    CHECK(rig.count("rx_dropped") == 1);
    CHECK(rig.rx().take_used()->length == sizeof(NetHeader) + udp_frame(100).size());
}

TEST_CASE("a frame that no number of buffers can hold is dropped") {
    Rig rig(1, {}, 0, 16);
    for (int i = 0; i < 16; ++i)
        rig.give_buffer(1);
    rig.backend.put(udp_frame(100));
    rig.run();
    CHECK(rig.count("rx_dropped") == 1);
    CHECK_FALSE(rig.rx().take_used());
    CHECK(rig.driver.faults.empty());
}

TEST_CASE("order is kept while buffers are short") {
    Rig rig;
    for (std::size_t i = 0; i < 10; ++i)
        rig.backend.put(udp_frame(10 + i));
    rig.run();
    for (std::size_t i = 0; i < 10; ++i) {
        CHECK_FALSE(rig.rx().take_used());
        rig.give_buffer(2000);
        rig.notify(0);
        CHECK(rig.rx().take_used()->length == sizeof(NetHeader) + udp_frame(10 + i).size());
    }
}

TEST_CASE("rate limits hold frames back, in order, in both directions") {
    const RateLimiter::Limits two_a_second{
        .bytes = std::nullopt, .ops = TokenBucketLimit{.size = 2, .refill_time = 1'000'000'000}};
    Rig rig(1, {.rx_limits = two_a_second, .tx_limits = two_a_second});
    for (std::size_t i = 0; i < 4; ++i) {
        rig.send(udp_frame(i));
        rig.give_buffer(2000);
        rig.backend.put(udp_frame(i));
    }
    rig.notify(0);
    CHECK(rig.backend.sent.size() == 2);
    CHECK(rig.count("rx_packets") == 2);
    CHECK(rig.count("tx_throttled") == 1);
    rig.clock.time += 1'000'000'000;
    rig.device->update_limits({}, {});  // looks again
    for (int i = 0; i < 3; ++i)
        rig.loop->run_once(100);
    REQUIRE(rig.backend.sent.size() == 4);
    CHECK(rig.backend.sent[3].frame == udp_frame(3));
    CHECK(rig.count("rx_packets") == 4);
}

TEST_CASE("a flood is served in turns, so that the loop's other work gets its own") {
    Rig rig;
    for (int i = 0; i < 250; ++i)
        rig.tx()
            .chain()
            .indirect()
            .append_readable(bytes_of(NetHeader()))
            .append_readable(udp_frame(1))
            .build();
    for (int i = 0; i < 300; ++i)
        rig.backend.put(udp_frame(1));
    for (int i = 0; i < 250; ++i)
        rig.rx().chain().append_writable(200).build();
    rig.notify(0);
    CHECK(rig.count("rx_packets") == 128);
    rig.notify(1);
    CHECK(rig.backend.sent.size() == 250);
    rig.run();
    CHECK(rig.count("rx_packets") == 250);
}

}  // namespace masu::net

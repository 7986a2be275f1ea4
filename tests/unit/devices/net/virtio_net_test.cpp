// virtio-net: polite and rude drivers against a backend in memory.
#include "devices/net/virtio_net.hpp"

#include <doctest/doctest.h>

#include "tests/unit/devices/net/fake_network.hpp"
#include "tests/unit/devices/virtio/fake_driver.hpp"

namespace masu::net {
namespace {

using namespace fake;
using virtio::fake::Memory;
using virtio::fake::Ring;

class TestClock final : public Clock {
  public:
    [[nodiscard]] Nanoseconds now() const noexcept override { return time; }
    [[nodiscard]] std::uint64_t wall() const noexcept override { return time; }
    Nanoseconds time = 1'000'000'000;
};

class TestDriver final : public virtio::Driver {
  public:
    void interrupt_queue(std::uint16_t queue) override { interrupts.push_back(queue); }
    void interrupt_config() override { ++config_changes; }
    void fault(std::string_view why) override { faults.emplace_back(why); }
    std::vector<std::uint16_t> interrupts;
    int config_changes = 0;
    std::vector<std::string> faults;
};

constexpr std::uint64_t ring_features =
    virtio::feature_version_1 | virtio::feature_indirect_desc | virtio::feature_event_idx;

// The device with its driver, and the transport's part played by hand.
struct Rig {
    explicit Rig(unsigned pair_count = 1, VirtioNet::Options options = {},
                 std::uint64_t without = 0, std::uint16_t ring_size = 256)
        : backend(pair_count) {
        options.mac = guest_mac;
        options.queue_pairs = pair_count;
        device = std::move(*VirtioNet::create("eth0", backend, filter, services, options, *loop,
                                              Log(), metrics, clock));
        features = device->features() & ~without;
        for (unsigned i = 0; i < 2 * pair_count; ++i)
            rings.push_back(
                std::make_unique<Ring>(memory, i % 2 == 0 ? ring_size : 256, ring_features));
        rings.push_back(std::make_unique<Ring>(memory, 64, ring_features));
        activate();
    }
    void activate() {
        std::vector<std::optional<virtio::Queue>> queues;
        for (auto& ring : rings)
            queues.emplace_back(ring->make_queue());
        const std::lock_guard lock(device->mutex());
        device->activate({.memory = &memory.guest(),
                          .features = features | ring_features,
                          .queues = std::move(queues),
                          .driver = &driver});
    }
    void notify(std::uint16_t queue) {
        const std::lock_guard lock(device->mutex());
        device->notify(queue);
    }
    void run() { loop->run_once(0); }
    Ring& rx(unsigned pair = 0) { return *rings[2 * pair]; }
    Ring& tx(unsigned pair = 0) { return *rings[2 * pair + 1]; }
    Ring& control() { return *rings.back(); }

    void send(const Bytes& frame, const NetHeader& header = {}, unsigned pair = 0) {
        tx(pair).chain().append_readable(bytes_of(header)).append_readable(frame).build();
        notify(static_cast<std::uint16_t>(2 * pair + 1));
    }
    virtio::fake::Built give_buffer(std::uint32_t size, unsigned pair = 0) {
        return rx(pair).chain().append_writable(size).build();
    }
    std::byte command(const Bytes& bytes) {
        const auto built = control().chain().append_readable(bytes).append_writable(1).build();
        notify(static_cast<std::uint16_t>(rings.size() - 1));
        REQUIRE(control().take_used());
        return control().written(built)[0];
    }
    std::uint64_t count(const char* name) { return metrics.counter("net_eth0", name).value(); }

    Memory memory{8 * MiB};
    TestClock clock;
    TestDriver driver;
    Metrics metrics;
    FakeBackend backend;
    FakeFilter filter;
    GuestServices* services = nullptr;
    std::unique_ptr<EventLoop> loop = std::move(*EventLoop::create());
    std::uint64_t features = 0;
    std::vector<std::unique_ptr<Ring>> rings;
    std::unique_ptr<VirtioNet> device;
};

NetHeader tso(std::size_t headers, std::uint8_t type = gso_tcpv4) {
    return {.flags = hdr_f_needs_csum,
            .gso_type = type,
            .hdr_len = static_cast<std::uint16_t>(headers),
            .gso_size = 1448,
            .csum_start = 34,
            .csum_offset = 16};
}

}  // namespace

TEST_CASE("the configuration space tells MAC, link, pairs and MTU") {
    Rig rig(2, {.mtu = 1400});
    std::array<std::byte, 12> config{};
    rig.device->read_config(0, config);
    CHECK(std::memcmp(config.data(), guest_mac.data(), 6) == 0);
    CHECK(load_unaligned<std::uint16_t>(&config[6]) == 1);
    CHECK(load_unaligned<std::uint16_t>(&config[8]) == 2);
    CHECK(load_unaligned<std::uint16_t>(&config[10]) == 1400);
    CHECK((rig.features & feature::mtu) != 0);
    CHECK((rig.features & feature::mq) != 0);
    CHECK((rig.features & feature::host_tso4) != 0);
    CHECK((rig.features & feature::host_uso) == 0);
}

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

TEST_CASE("queues of several pairs are served once the driver has set them") {
    Rig rig(4);
    CHECK(rig.backend.active == 1);
    rig.send(udp_frame(1), {}, 2);
    CHECK(rig.backend.sent.empty());
    CHECK(rig.command(bytes_of(std::uint8_t{4}) + bytes_of(std::uint8_t{0}) +
                      bytes_of(std::uint16_t{4})) == std::byte{0});
    CHECK(rig.backend.active == 4);
    rig.notify(5);
    REQUIRE(rig.backend.sent.size() == 1);
    CHECK(rig.backend.sent[0].queue == 2);
    rig.give_buffer(2000, 3);
    rig.backend.put(udp_frame(7), 3);
    rig.run();
    CHECK(rig.rx(3).take_used());
    CHECK(rig.driver.interrupts.back() == 6);
}

TEST_CASE("bad commands are refused") {
    Rig rig(2);
    const auto refused = [&](const Bytes& bytes) { return rig.command(bytes) == std::byte{1}; };
    const auto head = [](int c, int k) { return Bytes{std::byte(c), std::byte(k)}; };
    CHECK(refused(head(4, 0) + bytes_of(std::uint16_t{0})));
    CHECK(refused(head(4, 0) + bytes_of(std::uint16_t{3})));
    CHECK(refused(head(4, 0) + bytes_of(std::uint8_t{1})));
    CHECK(refused(head(4, 0) + bytes_of(std::uint32_t{1})));
    CHECK(refused(head(4, 1) + bytes_of(std::uint16_t{1})));
    CHECK(refused(head(0, 0) + bytes_of(std::uint8_t{1})));
    CHECK(refused(Bytes{std::byte{4}}));
    CHECK(refused(head(5, 0) + bytes_of(feature::guest_uso4)));
    CHECK(rig.count("control_refused") == 8);
    CHECK_FALSE(refused(head(5, 0) + bytes_of(feature::guest_csum | feature::guest_tso4)));
    CHECK(rig.backend.receive_offloads == (offload::csum | offload::tso4));
    // No room for the answer.
    rig.control().chain().append_readable(head(4, 0) + bytes_of(std::uint16_t{1})).build();
    rig.notify(4);
    CHECK(rig.control().take_used()->length == 0);
    CHECK(rig.driver.faults.empty());
}

TEST_CASE("without MQ the control queue is the third") {
    Rig rig(2, {}, feature::mq);
    const auto built =
        rig.rx(1)
            .chain()
            .append_readable(Bytes{std::byte{5}, std::byte{0}} + bytes_of(feature::guest_csum))
            .append_writable(1)
            .build();
    rig.notify(2);
    CHECK(rig.rx(1).take_used());
    CHECK(rig.rx(1).written(built)[0] == std::byte{0});
    CHECK(rig.backend.receive_offloads == offload::csum);
}

TEST_CASE("receive offloads follow what was negotiated, and end with a reset") {
    Rig rig(1, {}, feature::guest_tso6 | feature::guest_ufo);
    CHECK(rig.backend.receive_offloads == (offload::csum | offload::tso4 | offload::ecn));
    {
        const std::lock_guard lock(rig.device->mutex());
        rig.device->reset();
    }
    CHECK(rig.backend.receive_offloads == 0);
    // Nothing of the old life is delivered to the new one's rings by accident.
    rig.notify(0);
    rig.notify(1);
    rig.run();
    rig.rings.clear();
    for (const auto size : std::to_array<std::uint16_t>({256, 256, 64}))
        rig.rings.push_back(std::make_unique<Ring>(rig.memory, size, ring_features));
    rig.activate();
    rig.send(udp_frame(5));
    CHECK(rig.backend.sent.size() == 1);
}

TEST_CASE("a broken ring is one fault, and the device stays quiet until the reset") {
    Rig rig;
    rig.tx().chain().append_raw(rig.memory.end(), 100, 0).build();
    rig.notify(1);
    rig.notify(1);
    rig.backend.put(udp_frame(1));
    rig.give_buffer(2000);
    rig.notify(0);
    rig.run();
    CHECK(rig.driver.faults.size() == 1);
    CHECK_FALSE(rig.rx().take_used());

    Rig other;
    other.rx().put_avail_entry(0, 999);
    other.rx().set_avail_index(1);
    other.backend.put(udp_frame(1));
    other.run();
    CHECK(other.driver.faults.size() == 1);
}

namespace {
unsigned link_status(const Rig& rig) {
    std::array<std::byte, 2> status{};
    rig.device->read_config(6, status);
    return load_unaligned<std::uint16_t>(status.data());
}
}  // namespace

TEST_CASE("a restored guest is asked to announce itself until it has") {
    Rig rig;
    rig.device->arrive(VirtioNet::Arrival::SameAddress);
    CHECK(rig.driver.config_changes == 1);
    CHECK(link_status(rig) == 3);
    const auto acknowledge = bytes_of(std::uint8_t{3}) + bytes_of(std::uint8_t{0});
    CHECK(rig.command(acknowledge) == std::byte{0});
    CHECK(link_status(rig) == 1);
    rig.send(udp_frame(5));
    CHECK(rig.backend.sent.size() == 1);

    Rig old(1, {}, feature::guest_announce);
    old.device->arrive(VirtioNet::Arrival::SameAddress);
    CHECK(old.driver.config_changes == 1);
    CHECK(link_status(old) == 1);
    CHECK(old.command(acknowledge) == std::byte{1});
}

TEST_CASE("a guest with another address has its link cut until it has seen that") {
    constexpr Nanoseconds pause = 1'000'000;
    constexpr int wait_ms = 1000;  // for the timer; it comes after 1 ms
    Rig rig;
    rig.give_buffer(2000);
    rig.device->arrive(VirtioNet::Arrival::NewAddress, pause);
    CHECK(rig.driver.config_changes == 1);
    rig.backend.put(udp_frame(1));
    // As long as the driver does not look, the link stays down.
    for (int i = 0; i < 3; ++i) {
        rig.loop->run_once(wait_ms);
        rig.clock.time += pause;
    }
    CHECK(rig.driver.config_changes == 1);
    CHECK(link_status(rig) == 0);
    rig.loop->run_once(wait_ms);  // sees that it has looked: the pause begins
    rig.clock.time += pause;
    CHECK(rig.driver.config_changes == 1);
    CHECK_FALSE(rig.rx().take_used());
    rig.loop->run_once(wait_ms);
    CHECK(rig.driver.config_changes == 2);
    CHECK(link_status(rig) == 3);
    rig.loop->run_once(wait_ms);
    CHECK(rig.rx().take_used());

    // A driver that never looks gets it back in the end.
    Rig blind;
    blind.device->arrive(VirtioNet::Arrival::NewAddress, pause);
    blind.clock.time += VirtioNet::readdress_limit;
    blind.loop->run_once(wait_ms);
    CHECK(blind.driver.config_changes == 2);
    CHECK(link_status(blind) == 3);

    // A reset ends it.
    rig.device->arrive(VirtioNet::Arrival::NewAddress, pause);
    {
        const std::lock_guard lock(rig.device->mutex());
        rig.device->reset();
    }
    CHECK(link_status(rig) == 1);
}

TEST_CASE("a backend that ends takes the link down and does not spin") {
    Rig rig;
    rig.give_buffer(2000);
    rig.backend.closed = true;
    rig.backend.put(udp_frame(1));
    rig.run();
    CHECK(rig.driver.config_changes == 1);
    CHECK(rig.count("backend_closed") == 1);
    std::array<std::byte, 2> status{};
    rig.device->read_config(6, status);
    CHECK(load_unaligned<std::uint16_t>(status.data()) == 0);
    rig.backend.room = 0;
    rig.send(udp_frame(1));
    CHECK(rig.tx().take_used());
    rig.run();
    CHECK(rig.driver.config_changes == 1);
}

}  // namespace masu::net

// What every virtio transport must do, whatever its registers look like; run by each one's tests.
#pragma once

#include <doctest/doctest.h>

#include <array>
#include <concepts>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "base/event_loop.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "devices/virtio/transport.hpp"
#include "tests/unit/devices/virtio/fake_device.hpp"
#include "tests/unit/devices/virtio/fake_driver.hpp"

namespace masu::virtio::fake {

// What a transport under test is built from. The transport's id is "test".
struct World {
    Memory memory;
    std::unique_ptr<EventLoop> loop = std::move(*EventLoop::create());
    Metrics metrics;
    RecordingDevice device;
    Log log;

    std::uint64_t faults() { return metrics.counter("virtio_test", "faults").value(); }
    // Lets the loop handle what is ready, and no more.
    void settle() {
        for (int i = 0; i < 4; ++i)
            loop->run_once(0);
    }
};

// A driver's hands on one transport's registers. Built from a World&. Queue registers work on the
// queue selected last. take_...() says whether such an interrupt came since it was last asked.
template <class T>
concept DriverHands = std::constructible_from<T, World&> &&
                      requires(T& t, std::span<std::byte> out, std::span<const std::byte> in) {
                          { t.status() } -> std::same_as<std::uint8_t>;
                          t.set_status(std::uint8_t{});
                          { t.device_features(std::uint32_t{}) } -> std::same_as<std::uint32_t>;
                          t.set_driver_features(std::uint32_t{}, std::uint32_t{});
                          t.select_queue(std::uint16_t{});
                          { t.queue_max_size() } -> std::same_as<std::uint16_t>;
                          t.set_queue_size(std::uint16_t{});
                          t.set_queue_address(RingPart{}, std::uint64_t{});
                          t.enable_queue();
                          { t.queue_enabled() } -> std::same_as<bool>;
                          t.prepare_interrupts();  // vectors, if it has such; after a reset
                          t.notify(std::uint16_t{});
                          { t.config_generation() } -> std::same_as<std::uint32_t>;
                          t.read_config(std::uint64_t{}, out);
                          t.write_config(std::uint64_t{}, in);
                          { t.take_queue_interrupt(std::uint16_t{}) } -> std::same_as<bool>;
                          { t.take_config_interrupt() } -> std::same_as<bool>;
                          { t.core() } -> std::same_as<TransportCore&>;
                      };

// A polite driver's way from reset to DRIVER_OK, one step at a time, so that a test may stop
// anywhere. Only queue 0 is set up.
template <DriverHands T>
class BringUp {
  public:
    static constexpr int steps = 10;

    BringUp(World& world, T& hands)
        : hands_(hands), ring(world.memory, 8, feature_version_1 | feature_event_idx) {}

    void step(int n) {
        const auto config = ring.config();
        switch (n) {
            case 0:
                return hands_.set_status(status::acknowledge);
            case 1:
                return hands_.set_status(status::acknowledge | status::driver);
            case 2: {
                const std::uint64_t accepted = ring.features() | RecordingDevice::own_feature;
                hands_.set_driver_features(0, static_cast<std::uint32_t>(accepted));
                return hands_.set_driver_features(1, static_cast<std::uint32_t>(accepted >> 32));
            }
            case 3:
                return hands_.set_status(0x0b);
            case 4:
                hands_.prepare_interrupts();
                return hands_.select_queue(0);
            case 5:
                return hands_.set_queue_size(config.size);
            case 6:
                hands_.set_queue_address(RingPart::DescTable, config.desc_table.value);
                return hands_.set_queue_address(RingPart::Avail, config.avail.value);
            case 7:
                return hands_.set_queue_address(RingPart::Used, config.used.value);
            case 8:
                return hands_.enable_queue();
            default:
                return hands_.set_status(0x0f);
        }
    }
    void until(int end) {
        for (int i = 0; i < end; ++i)
            step(i);
    }
    void all() { until(steps); }

  private:
    T& hands_;

  public:
    Ring ring;
};

template <DriverHands T>
void check_fresh(World& world, T& hands) {
    CHECK(hands.status() == 0);
    CHECK_FALSE(world.device.active);
    for (std::uint16_t i = 0; i < 2; ++i) {
        hands.select_queue(i);
        CHECK_FALSE(hands.queue_enabled());
        CHECK(hands.queue_max_size() == RecordingDevice::sizes[i]);
    }
}

template <DriverHands T>
void run_features() {
    World world;
    T hands(world);
    const auto accept = [&](std::uint64_t bits) {
        hands.set_status(0);
        hands.set_status(0x03);
        hands.set_driver_features(0, static_cast<std::uint32_t>(bits));
        hands.set_driver_features(1, static_cast<std::uint32_t>(bits >> 32));
        hands.set_status(0x0b);
        return (hands.status() & status::features_ok) != 0;
    };
    const std::uint64_t offered = RecordingDevice::own_feature | feature_version_1 |
                                  feature_indirect_desc | feature_event_idx;

    SUBCASE("offered: the device's and the transport's, in two windows") {
        CHECK(hands.device_features(0) == static_cast<std::uint32_t>(offered));
        CHECK(hands.device_features(1) == offered >> 32);
        CHECK(hands.device_features(2) == 0);
        CHECK(hands.device_features(~0U) == 0);
    }
    SUBCASE("FEATURES_OK needs VERSION_1 and a subset of the offer") {
        CHECK(accept(offered));
        CHECK(accept(feature_version_1));
        CHECK_FALSE(accept(offered & ~feature_version_1));
        CHECK_FALSE(accept(0));
        for (const int bit : {0, 6, 24, 33, 34, 40, 63})
            CHECK_FALSE(accept(feature_version_1 | 1ULL << bit));
        CHECK(accept(feature_version_1));  // a refusal leaves nothing behind
    }
    SUBCASE("a bit beyond the 64 is no subset either") {
        hands.set_status(0x03);
        hands.set_driver_features(1, 1);
        hands.set_driver_features(2, 1);
        hands.set_status(0x0b);
        CHECK(hands.status() == 0x03);
        CHECK(accept(feature_version_1));
    }
    SUBCASE("frozen after FEATURES_OK") {
        BringUp<T> bring_up(world, hands);
        bring_up.until(4);
        hands.set_driver_features(0, ~0U);
        hands.set_driver_features(1, 0);
        for (int i = 4; i < BringUp<T>::steps; ++i)
            bring_up.step(i);
        CHECK(world.device.features_seen ==
              (RecordingDevice::own_feature | feature_version_1 | feature_event_idx));
    }
}

template <DriverHands T>
void run_status() {
    World world;
    T hands(world);
    BringUp<T> bring_up(world, hands);

    SUBCASE("a polite driver gets its device") {
        check_fresh(world, hands);
        bring_up.all();
        CHECK(hands.status() == 0x0f);
        REQUIRE(world.device.activations == 1);
        CHECK(world.device.queues.size() == 2);
        CHECK(world.device.queues[0]->size() == 8);
        CHECK_FALSE(world.device.queues[1].has_value());
        CHECK(world.faults() == 0);
    }
    SUBCASE("bits are cleared by a reset only") {
        bring_up.until(4);
        hands.set_status(status::acknowledge);
        CHECK(hands.status() == 0x0b);
        hands.set_status(status::failed);
        CHECK(hands.status() == 0x8b);
    }
    SUBCASE("DEVICE_NEEDS_RESET is not the driver's to set") {
        hands.set_status(status::acknowledge | status::device_needs_reset);
        CHECK(hands.status() == status::acknowledge);
    }
    SUBCASE("DRIVER_OK without FEATURES_OK is a fault") {
        hands.set_status(0x07);
        CHECK((hands.status() & status::device_needs_reset) != 0);
        CHECK(world.device.activations == 0);
        CHECK(world.faults() == 1);
    }
    SUBCASE("reset works after every step, and the next driver starts afresh") {
        for (int steps = 0; steps <= BringUp<T>::steps; ++steps) {
            CAPTURE(steps);
            bring_up.until(steps);
            hands.set_status(0);
            check_fresh(world, hands);
        }
        CHECK(world.device.activations == 1);
        CHECK(world.device.resets == 1);
        BringUp<T> again(world, hands);
        again.all();
        CHECK(world.device.activations == 2);
        CHECK(world.faults() == 0);
    }
    SUBCASE("DRIVER_OK twice activates once") {
        bring_up.all();
        hands.set_status(0x0f);
        CHECK(world.device.activations == 1);
    }
    CHECK(world.device.broken_calls == 0);
}

template <DriverHands T>
void run_queues() {
    World world;
    T hands(world);
    BringUp<T> bring_up(world, hands);

    SUBCASE("a queue that does not exist reads 0 and takes nothing") {
        for (const std::uint16_t index : std::array<std::uint16_t, 3>{2, 3, 0xffff}) {
            hands.select_queue(index);
            CHECK(hands.queue_max_size() == 0);
            hands.set_queue_size(4);
            hands.set_queue_address(RingPart::Avail, 0x1000);
            hands.enable_queue();
            CHECK_FALSE(hands.queue_enabled());
        }
    }
    SUBCASE("the driver may reduce the size, to a power of two") {
        bring_up.until(5);
        hands.set_queue_size(4);
        for (const std::uint16_t bad : std::array<std::uint16_t, 5>{0, 3, 6, 16, 0x8000})
            hands.set_queue_size(bad);
        for (int i = 6; i < BringUp<T>::steps; ++i)
            bring_up.step(i);
        REQUIRE(world.device.active);
        CHECK(world.device.queues[0]->size() == 4);
    }
    SUBCASE("an enabled queue is set in stone") {
        bring_up.until(9);
        hands.set_queue_size(2);
        hands.set_queue_address(RingPart::DescTable, 0);
        hands.set_queue_address(RingPart::Avail, 0);
        hands.set_queue_address(RingPart::Used, 0);
        bring_up.step(9);
        REQUIRE(world.device.active);
        CHECK(world.device.queues[0]->size() == 8);
    }
    SUBCASE("a queue outside RAM is a fault, and the device never sees it") {
        for (const auto part : {RingPart::DescTable, RingPart::Avail, RingPart::Used}) {
            bring_up.until(8);
            hands.set_queue_address(part, 0xffff'ffff'ffff'fff0);
            bring_up.step(8);
            bring_up.step(9);
            CHECK((hands.status() & status::device_needs_reset) != 0);
            CHECK(hands.take_config_interrupt());
            hands.notify(0);
            world.settle();
            hands.set_status(0);
            check_fresh(world, hands);
        }
        CHECK(world.faults() == 3);
        CHECK(world.device.activations == 0);
        CHECK(world.device.notified.empty());
    }
    SUBCASE("no queue at all is no fault") {
        bring_up.until(8);
        bring_up.step(9);
        CHECK(hands.status() == 0x0f);
        CHECK(world.device.active);
    }
    SUBCASE("a queue cannot join a running device") {
        bring_up.all();
        hands.select_queue(1);
        hands.enable_queue();
        CHECK_FALSE(hands.queue_enabled());
        hands.notify(1);
        world.settle();
        CHECK(std::ranges::count(world.device.notified, 1) == 0);
    }
    CHECK(world.device.broken_calls == 0);
}

template <DriverHands T>
void run_notifications() {
    World world;
    T hands(world);
    BringUp<T> bring_up(world, hands);

    SUBCASE("a buffer goes there and an interrupt comes back") {
        bring_up.all();
        world.settle();
        CHECK_FALSE(hands.take_queue_interrupt(0));
        const auto built = bring_up.ring.chain().append_writable(1).build();
        hands.notify(0);
        CHECK_FALSE(bring_up.ring.take_used());  // the loop's thread does it, not the vCPU's
        world.settle();
        const auto used = bring_up.ring.take_used();
        REQUIRE(used);
        CHECK(used->id == built.head);
        CHECK(hands.take_queue_interrupt(0));
        CHECK_FALSE(hands.take_config_interrupt());
    }
    SUBCASE("the eventfd says the same") {
        bring_up.all();
        world.settle();
        bring_up.ring.chain().append_writable(1).build();
        hands.core().notify_event(0).signal();
        world.settle();
        CHECK(bring_up.ring.take_used());
    }
    SUBCASE("buffers from before DRIVER_OK are seen without a notification") {
        bring_up.until(9);
        bring_up.ring.chain().append_writable(1).build();
        bring_up.step(9);
        world.settle();
        CHECK(bring_up.ring.take_used());
    }
    SUBCASE("before DRIVER_OK a notification does nothing") {
        bring_up.until(9);
        hands.notify(0);
        world.settle();
        CHECK(world.device.notified.empty());
    }
    SUBCASE("a notification that a reset overtakes does nothing") {
        bring_up.all();
        world.settle();
        world.device.notified.clear();
        bring_up.ring.chain().append_writable(1).build();
        hands.notify(0);
        hands.set_status(0);
        world.settle();
        CHECK(world.device.notified.empty());
        CHECK_FALSE(bring_up.ring.take_used());
    }
    SUBCASE("nor does one for a queue that is not there") {
        bring_up.all();
        world.settle();
        world.device.notified.clear();
        for (const std::uint16_t index : std::array<std::uint16_t, 3>{1, 2, 0xffff})
            hands.notify(index);
        world.settle();
        CHECK(world.device.notified.empty());
    }
    SUBCASE("what completes during a reset interrupts nobody") {
        bring_up.all();
        world.settle();
        world.device.on_reset = [&] {
            world.device.driver->interrupt_queue(0);
            world.device.driver->interrupt_config();
        };
        hands.set_status(0);
        CHECK_FALSE(hands.take_queue_interrupt(0));
        CHECK_FALSE(hands.take_config_interrupt());
    }
    CHECK(world.device.broken_calls == 0);
}

template <DriverHands T>
void run_faults() {
    World world;
    T hands(world);
    BringUp<T> bring_up(world, hands);
    bring_up.all();
    world.settle();
    bring_up.ring.set_avail_index(9);  // more than the queue holds
    hands.notify(0);
    world.settle();
    CHECK(hands.status() == (0x0f | status::device_needs_reset));
    CHECK(hands.take_config_interrupt());
    CHECK(world.faults() == 1);

    SUBCASE("the device is left alone until the reset") {
        world.device.notified.clear();
        hands.notify(0);
        world.settle();
        CHECK(world.device.notified.empty());
        CHECK_FALSE(hands.take_config_interrupt());
    }
    SUBCASE("status writes do not heal it") {
        hands.set_status(0x0f);
        hands.set_status(0x01);
        CHECK(hands.status() == (0x0f | status::device_needs_reset));
    }
    SUBCASE("a reset heals it") {
        hands.set_status(0);
        check_fresh(world, hands);
        CHECK(world.device.resets == 1);
        BringUp<T> again(world, hands);
        again.all();
        again.ring.chain().append_writable(1).build();
        hands.notify(0);
        world.settle();
        CHECK(again.ring.take_used());
        CHECK(hands.status() == 0x0f);
    }
    CHECK(world.device.broken_calls == 0);
}

template <DriverHands T>
void run_config() {
    World world;
    T hands(world);
    for (std::size_t i = 0; i < world.device.config.size(); ++i)
        world.device.config[i] = static_cast<std::byte>(0xa0 + i);

    SUBCASE("reads of any width and place; zeros beyond the end") {
        for (const std::size_t width : {1, 2, 4}) {
            for (std::uint64_t offset = 0; offset < 32; offset += width) {
                std::array<std::byte, 4> got;
                got.fill(std::byte{0xee});
                hands.read_config(offset, std::span(got).first(width));
                for (std::size_t i = 0; i < width; ++i)
                    CHECK(got[i] == (offset + i < 16 ? static_cast<std::byte>(0xa0 + offset + i)
                                                     : std::byte{0}));
            }
        }
    }
    SUBCASE("writes reach the device") {
        const std::uint32_t value = 0x11223344;
        hands.write_config(4, as_bytes_of(value));
        CHECK(std::memcmp(world.device.config.data() + 4, &value, 4) == 0);
    }
    SUBCASE("the generation changes with the configuration, and with nothing else") {
        BringUp<T> bring_up(world, hands);
        const auto before = hands.config_generation();
        bring_up.all();
        CHECK(hands.config_generation() == before);
        {
            const std::lock_guard lock(world.device.mutex());
            world.device.driver->interrupt_config();
        }
        CHECK(hands.config_generation() != before);
        CHECK(hands.take_config_interrupt());
        CHECK_FALSE(hands.take_queue_interrupt(0));
    }
}

// Resets and notifications at full speed from two threads: whatever the order, the device is never
// called while it is inactive.
template <DriverHands T>
void run_race() {
    World world;
    T hands(world);
    BringUp<T> bring_up(world, hands);
    std::jthread loop_thread([&] { world.loop->run(); });
    for (int round = 0; round < 300; ++round) {
        bring_up.all();
        hands.notify(0);
        hands.notify(0);
        hands.set_status(0);
    }
    world.loop->stop();
    loop_thread.join();
    CHECK(world.device.activations == 300);
    CHECK(world.device.resets == 300);
    CHECK(world.device.broken_calls == 0);
    CHECK(world.faults() == 0);
}

template <DriverHands T>
void run_transport_conformance() {
    SUBCASE("features") {
        run_features<T>();
    }
    SUBCASE("status") {
        run_status<T>();
    }
    SUBCASE("queues") {
        run_queues<T>();
    }
    SUBCASE("notifications") {
        run_notifications<T>();
    }
    SUBCASE("faults") {
        run_faults<T>();
    }
    SUBCASE("config") {
        run_config<T>();
    }
    SUBCASE("race") {
        run_race<T>();
    }
}

}  // namespace masu::virtio::fake

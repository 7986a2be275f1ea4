// virtio-mmio: the conformance suite, and what only this transport has.
#include "devices/virtio/mmio_transport.hpp"

#include <doctest/doctest.h>

#include <array>
#include <memory>
#include <utility>

#include "base/bytes.hpp"
#include "tests/unit/devices/virtio/transport_conformance.hpp"

namespace masu::virtio {
namespace {

class PulseLine final : public InterruptLine {
  public:
    void set(bool asserted) override {
        if (asserted && !level_)
            ++pulses;
        level_ = asserted;
    }
    [[nodiscard]] bool level() const { return level_; }
    int pulses = 0;

  private:
    bool level_ = false;
};

class MmioHands {
  public:
    explicit MmioHands(fake::World& world)
        : transport_(
              std::move(*MmioTransport::create("test", world.device, world.memory.guest(),
                                               *world.loop, line, world.metrics, world.log))) {}

    template <class U = std::uint32_t>
    U get(std::uint64_t offset) {
        U value{};
        transport_->read(offset, std::as_writable_bytes(std::span(&value, 1)));
        return value;
    }
    template <class U = std::uint32_t>
    void put(std::uint64_t offset, U value) {
        transport_->write(offset, as_bytes_of(value));
    }

    std::uint8_t status() { return static_cast<std::uint8_t>(get(0x70)); }
    void set_status(std::uint8_t value) { put(0x70, value + 0U); }
    std::uint32_t device_features(std::uint32_t window) {
        put(0x14, window);
        return get(0x10);
    }
    void set_driver_features(std::uint32_t window, std::uint32_t bits) {
        put(0x24, window);
        put(0x20, bits);
    }
    void select_queue(std::uint16_t index) { put(0x30, index + 0U); }
    std::uint16_t queue_max_size() { return static_cast<std::uint16_t>(get(0x34)); }
    void set_queue_size(std::uint16_t size) { put(0x38, size + 0U); }
    void set_queue_address(RingPart part, std::uint64_t address) {
        const std::uint64_t low = 0x80 + 0x10 * std::to_underlying(part);
        put(low, static_cast<std::uint32_t>(address));
        put(low + 4, static_cast<std::uint32_t>(address >> 32));
    }
    void enable_queue() { put(0x44, 1U); }
    bool queue_enabled() { return get(0x44) == 1; }
    void prepare_interrupts() {}
    void notify(std::uint16_t queue) { put(0x50, queue + 0U); }
    std::uint32_t config_generation() { return get(0xfc); }
    void read_config(std::uint64_t offset, std::span<std::byte> out) {
        transport_->read(0x100 + offset, out);
    }
    void write_config(std::uint64_t offset, std::span<const std::byte> in) {
        transport_->write(0x100 + offset, in);
    }
    bool take_queue_interrupt(std::uint16_t /*queue*/) { return take_interrupt(1); }
    bool take_config_interrupt() { return take_interrupt(2); }
    TransportCore& core() { return transport_->core(); }

    PulseLine line;

  private:
    bool take_interrupt(std::uint32_t bit) {
        const bool set = (get(0x60) & bit) != 0;
        put(0x64, bit);
        CHECK((get(0x60) & bit) == 0);
        return set;
    }
    std::unique_ptr<MmioTransport> transport_;
};

struct Fixture {
    fake::World world;
    MmioHands hands{world};
    fake::BringUp<MmioHands> bring_up{world, hands};
};

}  // namespace

TEST_CASE("virtio-mmio conforms") {
    fake::run_transport_conformance<MmioHands>();
}

TEST_CASE_FIXTURE(Fixture, "the identity registers are those of version 2") {
    CHECK(hands.get(0x00) == 0x74726976);
    CHECK(hands.get(0x04) == 2);
    CHECK(hands.get(0x08) == 2);
    CHECK(hands.get(0x0c) != 0);
    hands.put(0x00, ~0U);
    CHECK(hands.get(0x00) == 0x74726976);
}

TEST_CASE_FIXTURE(Fixture, "there are no shared memory regions and no queue reset") {
    hands.put(0xac, 0U);
    for (const std::uint64_t offset : {0xb0, 0xb4, 0xb8, 0xbc})
        CHECK(hands.get(offset) == ~0U);
    hands.put(0xc0, 1U);
    CHECK(hands.get(0xc0) == 0);
    CHECK(hands.device_features(1) == 1);  // VERSION_1, no RING_RESET (bit 40)
}

TEST_CASE_FIXTURE(Fixture, "registers take aligned 32-bit accesses only") {
    CHECK(hands.get<std::uint8_t>(0x00) == 0);
    CHECK(hands.get<std::uint16_t>(0x00) == 0);
    CHECK(hands.get<std::uint64_t>(0x00) == 0);
    CHECK(hands.get(0x01) == 0);
    hands.put<std::uint8_t>(0x70, 1);
    hands.put<std::uint16_t>(0x70, 1);
    hands.put<std::uint64_t>(0x70, 1);
    hands.put(0x71, 1U);
    CHECK(hands.status() == 0);
    hands.put(0x70, 1U);
    CHECK(hands.status() == 1);
    hands.put(0x70, 0x100U);  // no reset: it is not 0
    CHECK(hands.status() == 1);
}

TEST_CASE_FIXTURE(Fixture, "offsets without a register and write-only ones read 0") {
    for (std::uint64_t offset = 0; offset < 0x100; offset += 4)
        hands.get(offset);
    for (const std::uint64_t offset : {0x14, 0x18, 0x30, 0x38, 0x50, 0x64, 0x80, 0xa4, 0xd0, 0xf8})
        CHECK(hands.get(offset) == 0);
}

TEST_CASE_FIXTURE(Fixture, "every notification is a pulse, also when its bit is still set") {
    bring_up.all();
    for (int i = 1; i <= 3; ++i) {
        const std::lock_guard lock(world.device.mutex());
        world.device.driver->interrupt_queue(0);
        CHECK(hands.line.pulses == i);
        CHECK_FALSE(hands.line.level());
    }
    CHECK(hands.get(0x60) == 1);
    {
        const std::lock_guard lock(world.device.mutex());
        world.device.driver->interrupt_config();
    }
    CHECK(hands.get(0x60) == 3);
    hands.put(0x64, 1U);
    CHECK(hands.get(0x60) == 2);
    hands.set_status(0);
    CHECK(hands.get(0x60) == 0);
}

TEST_CASE_FIXTURE(Fixture, "QueueReady = 0 takes back a queue that is not in use") {
    bring_up.until(9);
    hands.put(0x44, 0U);
    CHECK_FALSE(hands.queue_enabled());
    CHECK(hands.status() == 0x0b);
    hands.put(0x44, 2U);
    CHECK_FALSE(hands.queue_enabled());
}

TEST_CASE_FIXTURE(Fixture, "QueueReady = 0 on a running device stops it and asks for a reset") {
    bring_up.all();
    hands.put(0x44, 0U);
    CHECK_FALSE(hands.queue_enabled());
    CHECK_FALSE(world.device.active);
    CHECK((hands.status() & status::device_needs_reset) != 0);
    bring_up.ring.chain().append_writable(1).build();
    hands.notify(0);
    world.settle();
    CHECK_FALSE(bring_up.ring.take_used());
    hands.set_status(0);
    CHECK(world.device.resets == 1);
    CHECK(world.device.broken_calls == 0);
}

TEST_CASE("a transport that goes away resets its device") {
    fake::World world;
    {
        MmioHands hands(world);
        fake::BringUp<MmioHands> bring_up(world, hands);
        bring_up.all();
    }
    CHECK_FALSE(world.device.active);
    CHECK(world.device.resets == 1);
    world.settle();
}

}  // namespace masu::virtio

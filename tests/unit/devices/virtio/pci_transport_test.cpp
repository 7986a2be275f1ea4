// virtio-pci: the conformance suite, and what only this transport has. The driver's hands find the
// structures as a guest does: through ECAM, the capability list and the BAR on the bus.
#include "devices/virtio/pci_transport.hpp"

#include <doctest/doctest.h>

#include <array>
#include <map>
#include <memory>
#include <random>
#include <utility>

#include "base/bytes.hpp"
#include "devices/pci/root.hpp"
#include "tests/unit/devices/pci/fake_pci.hpp"
#include "tests/unit/devices/virtio/transport_conformance.hpp"

namespace masu::virtio {
namespace {

constexpr unsigned config_row = 0;
constexpr std::uint32_t message_base = 0x50;  // vector n sends message_base + n

class PciHands {
  public:
    explicit PciHands(fake::World& world)
        : root_(mmio, {.start = 0xd000'0000, .end = 0xe000'0000}, world.metrics, world.log),
          transport_(std::move(*PciTransport::create("test", world.device, world.memory.guest(),
                                                     *world.loop, bank, &registrar, world.metrics,
                                                     world.log))) {
        slot_ = *root_.add(*transport_);
        bar_ = config_get(pci::reg::bar0);
        for (auto at = config_get<std::uint8_t>(pci::reg::capabilities); at != 0;
             at = config_get<std::uint8_t>(at + 1U)) {
            if (config_get<std::uint8_t>(at) == pci::capability::msix)
                msix_ = at;
            else
                capabilities[config_get<std::uint8_t>(at + 3U)] = at;
        }
    }
    ~PciHands() { root_.remove(slot_); }
    PciHands(const PciHands&) = delete;
    PciHands& operator=(const PciHands&) = delete;

    template <class U = std::uint32_t>
    U config_get(std::uint64_t offset) {
        U value{};
        root_.ecam().read(slot_ << 15 | offset, std::as_writable_bytes(std::span(&value, 1)));
        return value;
    }
    template <class U>
    void config_put(std::uint64_t offset, U value) {
        root_.ecam().write(slot_ << 15 | offset, as_bytes_of(value));
    }
    template <class U = std::uint32_t>
    U get(std::uint64_t offset) {
        U value{};
        mmio.read(bar_ + offset, std::as_writable_bytes(std::span(&value, 1)));
        return value;
    }
    template <class U = std::uint32_t>
    void put(std::uint64_t offset, U value) {
        mmio.write(bar_ + offset, as_bytes_of(value));
    }
    // A field of the structure of this cfg_type.
    template <class U = std::uint32_t>
    U field(std::uint8_t type, std::uint64_t offset) {
        return get<U>(start_of(type) + offset);
    }
    template <class U>
    void set_field(std::uint8_t type, std::uint64_t offset, U value) {
        put<U>(start_of(type) + offset, value);
    }
    std::uint32_t start_of(std::uint8_t type) { return config_get(capabilities[type] + 8U); }

    std::uint8_t status() { return field<std::uint8_t>(1, 20); }
    void set_status(std::uint8_t value) { set_field<std::uint8_t>(1, 20, value); }
    std::uint32_t device_features(std::uint32_t window) {
        set_field(1, 0, window);
        return field(1, 4);
    }
    void set_driver_features(std::uint32_t window, std::uint32_t bits) {
        set_field(1, 8, window);
        set_field(1, 12, bits);
    }
    void select_queue(std::uint16_t index) { set_field(1, 22, index); }
    std::uint16_t queue_max_size() { return field<std::uint16_t>(1, 24); }
    void set_queue_size(std::uint16_t size) { set_field(1, 24, size); }
    void set_queue_address(RingPart part, std::uint64_t address) {
        const std::uint64_t low = 32U + 8U * std::to_underlying(part);
        set_field(1, low, static_cast<std::uint32_t>(address));
        set_field(1, low + 4, static_cast<std::uint32_t>(address >> 32));
    }
    void enable_queue() { set_field<std::uint16_t>(1, 28, 1); }
    bool queue_enabled() { return field<std::uint16_t>(1, 28) == 1; }
    void set_msix_control(std::uint16_t value) { config_put<std::uint16_t>(msix_ + 2U, value); }
    void prepare_interrupts() {
        const auto table = config_get(msix_ + 4U) & ~7U;
        set_msix_control(0xc000);
        for (std::uint32_t vector = 0; vector < 3; ++vector) {
            put(table + 16 * vector, 0xfee0'0000U);
            put(table + 16 * vector + 8, message_base + vector);
            put(table + 16 * vector + 12, 0U);
        }
        set_msix_control(0x8000);
        set_field<std::uint16_t>(1, 16, config_row);
        for (std::uint16_t queue = 0; queue < 2; ++queue) {
            select_queue(queue);
            set_field<std::uint16_t>(1, 26, static_cast<std::uint16_t>(1 + queue));
        }
    }
    void notify(std::uint16_t queue) {
        put<std::uint16_t>(start_of(2) + std::uint64_t{config_get(capabilities[2] + 16U)} * queue,
                           queue);
    }
    std::uint32_t config_generation() { return field<std::uint8_t>(1, 21); }
    void read_config(std::uint64_t offset, std::span<std::byte> out) {
        mmio.read(bar_ + start_of(4) + offset, out);
    }
    void write_config(std::uint64_t offset, std::span<const std::byte> in) {
        mmio.write(bar_ + start_of(4) + offset, in);
    }
    bool take_queue_interrupt(std::uint16_t queue) { return bank.take(message_base + 1U + queue); }
    bool take_config_interrupt() { return bank.take(message_base + config_row); }
    TransportCore& core() { return transport_->core(); }
    PciTransport& transport() { return *transport_; }
    [[nodiscard]] std::uint64_t bar() const { return bar_; }
    void look_at_bar() { bar_ = config_get(pci::reg::bar0); }

    Bus mmio;
    pci::fake::RecordingBank bank;
    pci::fake::RecordingRegistrar registrar;
    std::map<std::uint8_t, std::uint8_t> capabilities;  // virtio's: cfg_type to offset

  private:
    pci::Root root_;
    std::unique_ptr<PciTransport> transport_;
    unsigned slot_ = 0;
    std::uint64_t bar_ = 0;
    std::uint8_t msix_ = 0;
};

struct Fixture {
    fake::World world;
    PciHands hands{world};
    fake::BringUp<PciHands> bring_up{world, hands};

    // The PCI_CFG window.
    void point(std::uint8_t bar, std::uint32_t offset, std::uint32_t length) {
        const auto at = hands.capabilities[5];
        hands.config_put(at + 4U, bar);
        hands.config_put(at + 8U, offset);
        hands.config_put(at + 12U, length);
    }
    [[nodiscard]] std::uint64_t window_data() { return hands.capabilities[5] + 16U; }
};

}  // namespace

TEST_CASE("virtio-pci conforms") {
    fake::run_transport_conformance<PciHands>();
}

TEST_CASE_FIXTURE(Fixture, "the function is a modern block device") {
    CHECK(hands.config_get(0x00) == 0x10421af4);
    CHECK(hands.config_get(0x08) == 0x01800001);
    CHECK(hands.config_get<std::uint16_t>(0x2c) == 0x1af4);
    CHECK(hands.config_get<std::uint16_t>(0x2e) >= 0x40);
    CHECK(hands.capabilities.size() == 5);
    for (const auto& [type, at] : hands.capabilities) {
        CHECK(hands.config_get<std::uint8_t>(at) == 0x09);
        CHECK(hands.config_get<std::uint8_t>(at + 2U) == (type == 2 || type == 5 ? 20 : 16));
        CHECK(hands.config_get<std::uint8_t>(at + 4U) == 0);
        CHECK(hands.config_get(at + 8U) % 4 == 0);
    }
    CHECK(hands.config_get(hands.capabilities[1] + 12U) >= 56);
    CHECK(hands.config_get(hands.capabilities[2] + 12U) >= 2 * 4);
    CHECK(hands.field<std::uint16_t>(1, 18) == 2);
    CHECK(PciTransport::vectors_for(world.device) == 3);
    hands.select_queue(1);
    CHECK(hands.field<std::uint16_t>(1, 30) == 1);
    hands.select_queue(2);
    CHECK(hands.field<std::uint16_t>(1, 30) == 0);
}

TEST_CASE_FIXTURE(Fixture,
                  "vectors: NO_VECTOR at first, for what is out of range, and after reset") {
    const auto vector = [&](std::uint64_t offset, std::uint16_t value) {
        hands.set_field(1, offset, value);
        return hands.field<std::uint16_t>(1, offset);
    };
    for (const std::uint64_t offset : {16, 26}) {
        CHECK(hands.field<std::uint16_t>(1, offset) == no_vector);
        CHECK(vector(offset, 2) == 2);
        CHECK(vector(offset, 3) == no_vector);
        CHECK(vector(offset, 1) == 1);
        CHECK(vector(offset, no_vector) == no_vector);
        CHECK(vector(offset, 0) == 0);
    }
    hands.select_queue(2);
    CHECK(vector(26, 1) == no_vector);
    hands.set_status(0);
    CHECK(hands.field<std::uint16_t>(1, 16) == no_vector);
    CHECK(hands.field<std::uint16_t>(1, 26) == no_vector);
}

TEST_CASE_FIXTURE(Fixture, "without a vector nothing is sent, and the ISR status says why") {
    bring_up.until(4);
    hands.set_msix_control(0x8000);
    hands.select_queue(0);
    for (int i = 5; i < bring_up.steps; ++i)
        bring_up.step(i);
    {
        const std::lock_guard lock(world.device.mutex());
        world.device.driver->interrupt_queue(0);
        world.device.driver->interrupt_config();
    }
    CHECK(hands.bank.sent.empty());
    CHECK(hands.field<std::uint16_t>(3, 0) == 0xffff);  // not its width
    CHECK(hands.field<std::uint8_t>(3, 0) == 3);
    CHECK(hands.field<std::uint8_t>(3, 0) == 0);  // reading clears
}

TEST_CASE_FIXTURE(Fixture, "a masked function keeps its interrupt for later") {
    bring_up.all();
    world.settle();
    hands.set_msix_control(0xc000);
    bring_up.ring.chain().append_writable(1).build();
    hands.notify(0);
    world.settle();
    CHECK_FALSE(hands.take_queue_interrupt(0));
    hands.set_msix_control(0x8000);
    CHECK(hands.take_queue_interrupt(0));
    CHECK(hands.bank.unrouted_signals == 0);
}

TEST_CASE_FIXTURE(Fixture, "common registers take the widths of the specification") {
    hands.set_field<std::uint64_t>(1, 32, 0x1'2345'6780);
    CHECK(hands.field(1, 32) == 0x2345'6780);
    CHECK(hands.field(1, 36) == 1);
    CHECK(hands.field<std::uint64_t>(1, 32) == 0x1'2345'6780);
    hands.set_field<std::uint32_t>(1, 20, 0x00ff'00ff);  // across status, generation, queue_select
    CHECK(hands.status() == 0);
    hands.set_field<std::uint16_t>(1, 20, 1);
    CHECK(hands.status() == 0);
    hands.set_field<std::uint8_t>(1, 24, 4);
    CHECK(hands.queue_max_size() == 8);
    hands.set_field<std::uint32_t>(1, 34, 0);  // unaligned
    CHECK(hands.field(1, 32) == 0x2345'6780);
    CHECK(hands.field<std::uint16_t>(1, 20) == 0xffff);
    CHECK(hands.field<std::uint64_t>(1, 56) == ~std::uint64_t{0});  // beyond the end
    hands.set_field<std::uint16_t>(1, 18, 0);                       // read-only
    CHECK(hands.field<std::uint16_t>(1, 18) == 2);
    hands.set_field<std::uint16_t>(1, 28, 2);
    CHECK_FALSE(hands.queue_enabled());
    hands.set_field<std::uint16_t>(1, 58, 1);
    CHECK(hands.field<std::uint16_t>(1, 58) == 0);
}

TEST_CASE_FIXTURE(Fixture, "ioeventfds follow the BAR, and only when it comes to lie elsewhere") {
    auto& registrar = hands.registrar;
    const auto at = hands.bar() + hands.start_of(2);
    REQUIRE(registrar.events.size() == 2);
    CHECK(registrar.events[at] == &hands.core().notify_event(0));
    CHECK(registrar.events[at + 4] == &hands.core().notify_event(1));
    CHECK(registrar.calls == 2);

    hands.config_put<std::uint16_t>(4, 0);
    hands.config_put(0x10, ~0U);
    hands.config_put(0x10, static_cast<std::uint32_t>(hands.bar()));
    hands.config_put<std::uint16_t>(4, 6);
    CHECK(registrar.calls == 2);

    hands.config_put(0x10, 0xd100'0000U);
    hands.look_at_bar();
    CHECK(registrar.events.size() == 2);
    CHECK(registrar.events.contains(hands.bar() + hands.start_of(2) + 4));
    CHECK(registrar.broken_removes == 0);

    hands.config_put(0x10, 0U);
    CHECK(registrar.events.empty());
}

TEST_CASE("without ioeventfds notifications are register writes") {
    fake::World world;
    PciHands hands(world);
    hands.registrar.refuse = true;
    hands.config_put(0x10, 0xd100'0000U);
    hands.look_at_bar();
    CHECK(hands.registrar.events.empty());
    fake::BringUp<PciHands> bring_up(world, hands);
    bring_up.all();
    world.settle();
    bring_up.ring.chain().append_writable(1).build();
    hands.notify(0);
    world.settle();
    CHECK(bring_up.ring.take_used());
    hands.config_put(0x10, 0U);
    CHECK(hands.registrar.broken_removes == 0);
}

TEST_CASE_FIXTURE(Fixture, "the PCI_CFG window reaches the BAR") {
    point(0, hands.start_of(1) + 20, 1);
    hands.config_put<std::uint8_t>(window_data(), 0x03);
    CHECK(hands.status() == 0x03);
    CHECK(hands.config_get<std::uint8_t>(window_data()) == 0x03);
    point(0, hands.start_of(1) + 18, 2);
    CHECK(hands.config_get<std::uint16_t>(window_data()) == 2);
    point(0, hands.start_of(1) + 12, 4);
    hands.config_put<std::uint32_t>(window_data(), 0x20);
    CHECK(hands.field(1, 12) == 0x20);
    // Also while the BAR does not decode, which is what the window is for.
    hands.config_put<std::uint16_t>(4, 0);
    CHECK(hands.config_get(window_data()) == 0x20);
}

TEST_CASE_FIXTURE(Fixture, "a PCI_CFG window that points nowhere is plain memory") {
    const auto status = hands.start_of(1) + 20;
    for (const auto& [bar, offset, length] :
         std::initializer_list<std::tuple<std::uint8_t, std::uint32_t, std::uint32_t>>{
             {1, status, 1},
             {6, status, 1},
             {0xff, status, 1},
             {0, status, 0},
             {0, status, 3},
             {0, status, 8},
             {0, 18, 4},
             {0, 0x8000, 4},
             {0, 0x7fff, 4},
             {0, ~0U, 1},
             {0, ~3U, 4},
             {0, status, ~0U}}) {
        point(bar, offset, length);
        hands.config_put<std::uint32_t>(window_data(), 0x0101'0101);
        CHECK(hands.config_get(window_data()) == 0x0101'0101);
        CHECK(hands.status() == 0);
    }
}

TEST_CASE("more queues than pages hold is an error") {
    struct Wide final : Device {
        std::vector<std::uint16_t> sizes = std::vector<std::uint16_t>(256, 4);
        [[nodiscard]] DeviceId id() const noexcept override { return DeviceId::Net; }
        [[nodiscard]] std::uint64_t features() const noexcept override { return 0; }
        [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override {
            return sizes;
        }
        void read_config(std::uint64_t, std::span<std::byte>) const noexcept override {}
        void write_config(std::uint64_t, std::span<const std::byte>) noexcept override {}
        void activate(Activation) override {}
        void notify(std::uint16_t) override {}
        void reset() override {}
    };
    fake::World world;
    Wide wide;
    pci::fake::RecordingBank bank;
    const auto create = [&] {
        return PciTransport::create("wide", wide, world.memory.guest(), *world.loop, bank, nullptr,
                                    world.metrics, world.log);
    };
    CHECK_FALSE(create());
    wide.sizes.resize(255);
    CHECK(create());
}

TEST_CASE_FIXTURE(Fixture, "a saved state brings the vectors back") {
    bring_up.all();
    {
        const std::lock_guard lock(world.device.mutex());
        world.device.driver->interrupt_config();
    }
    auto saved = hands.transport().save();
    hands.set_status(0);
    REQUIRE(hands.transport().restore(saved));
    hands.select_queue(1);
    CHECK(hands.field<std::uint16_t>(1, 16) == config_row);
    CHECK(hands.field<std::uint16_t>(1, 26) == 2);
    CHECK(hands.field<std::uint8_t>(3, 0) == 2);
    saved.queue_vectors[0] = 77;
    REQUIRE(hands.transport().restore(saved));
    hands.select_queue(0);
    CHECK(hands.field<std::uint16_t>(1, 26) == no_vector);
    saved.queue_vectors.resize(5);
    CHECK_FALSE(hands.transport().restore(saved));
}

TEST_CASE_FIXTURE(Fixture, "random accesses to the BAR and to configuration space do no harm") {
    std::mt19937_64 random(7);
    for (int i = 0; i < 40000; ++i) {
        auto data = random() & random();
        const auto bytes = std::as_writable_bytes(std::span(&data, 1)).first(1 + random() % 8);
        const auto offset = (random() % 8 << 12 | random() % 80) + (random() % 16 == 0 ? 0xff0 : 0);
        switch (random() % 4) {
            case 0:
                hands.transport().write(offset, bytes);
                break;
            case 1:
                hands.transport().read(offset, bytes);
                break;
            case 2:
                hands.transport().write_config(static_cast<std::uint16_t>(random() % 256), bytes);
                break;
            default:
                hands.transport().read_config(static_cast<std::uint16_t>(random() % 256), bytes);
        }
        if (i % 64 == 0)
            world.settle();
    }
    CHECK(world.device.broken_calls == 0);
    CHECK(hands.bank.unrouted_signals == 0);
    CHECK(hands.registrar.broken_removes == 0);
    hands.transport().write(20, as_bytes_of(std::uint8_t{0}));
    CHECK_FALSE(world.device.active);
}

}  // namespace masu::virtio

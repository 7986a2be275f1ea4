// What every virtio device must do about snapshots, behind every transport.
#include <doctest/doctest.h>

#include <memory>
#include <vector>

#include "base/bytes.hpp"
#include "devices/block/virtio_block.hpp"
#include "devices/net/virtio_net.hpp"
#include "devices/virtio/mmio_transport.hpp"
#include "devices/virtio/pci_transport.hpp"
#include "devices/virtio/rng.hpp"
#include "devices/vsock/virtio_vsock.hpp"
#include "tests/unit/devices/block/memory_disk.hpp"
#include "tests/unit/devices/net/fake_network.hpp"
#include "tests/unit/devices/pci/fake_pci.hpp"
#include "tests/unit/devices/virtio/fake_driver.hpp"

namespace masu::virtio {
namespace {

struct StillClock final : Clock {
    Nanoseconds time = 1;
    [[nodiscard]] Nanoseconds now() const noexcept override { return time; }
    [[nodiscard]] std::uint64_t wall() const noexcept override { return time; }
};

struct QuietLine final : InterruptLine {
    void set(bool) override {}
};

struct World {
    fake::Memory memory;
    std::unique_ptr<EventLoop> loop = std::move(*EventLoop::create());
    Metrics metrics;
    StillClock clock;
    Log log;
    net::fake::FakeFilter filter;
    std::vector<std::unique_ptr<net::fake::FakeBackend>> backends;  // of each interface made
    void settle(int turns = 8) {
        for (int i = 0; i < turns; ++i)
            loop->run_once(0);
    }
};

// Two requests, then none for as long as the clock stands still: what follows waits in the device.
RateLimiter::Limits two_requests() {
    return {.bytes = {}, .ops = TokenBucketLimit{.size = 2, .refill_time = 1'000'000}};
}

struct RngKind {
    static std::unique_ptr<Device> make(World& world) {
        return std::move(*Rng::create(two_requests(), *world.loop, world.clock, world.metrics));
    }
    static void request(fake::Ring& ring, unsigned) { ring.chain().append_writable(16).build(); }
};

struct BlockKind {
    static std::unique_ptr<Device> make(World& world) {
        auto file = std::make_shared<test::HostFile>();
        file->content.resize(64 * KiB, std::byte{7});
        block::VirtioBlock::Options options;
        options.limits = two_requests();
        return std::move(*block::VirtioBlock::create(
            "disk", std::make_unique<test::MemoryDisk>(std::move(file), 1), std::move(options),
            *world.loop, world.log, world.metrics, world.clock));
    }
    static void request(fake::Ring& ring, unsigned number) {
        struct Header {
            std::uint32_t type;
            std::uint32_t reserved;
            std::uint64_t sector;
        };
        ring.chain()
            .append_readable(Header{0, 0, number})
            .append_writable(512)
            .append_writable(1)
            .build();
    }
};

// Its queue 0 is for frames to the guest, of which more are waiting than anyone asks for.
struct NetKind {
    static std::unique_ptr<Device> make(World& world) {
        auto& backend = *world.backends.emplace_back(std::make_unique<net::fake::FakeBackend>());
        for (int i = 0; i < 16; ++i)
            backend.put(net::fake::udp_frame(32));
        return std::move(*net::VirtioNet::create("net", backend, world.filter, nullptr,
                                                 {.mac = net::fake::guest_mac,
                                                  .mtu = {},
                                                  .queue_pairs = 1,
                                                  .rx_limits = two_requests(),
                                                  .tx_limits = {}},
                                                 *world.loop, world.log, world.metrics,
                                                 world.clock));
    }
    static void request(fake::Ring& ring, unsigned) { ring.chain().append_writable(256).build(); }
};

// Its connections are not saved (see tests/unit/devices/vsock/restore_test.cpp), but its queues
// are.
struct VsockKind {
    static std::unique_ptr<Device> make(World& world) {
        return std::move(*vsock::VirtioVsock::create(
            {.guest_cid = 3, .connect = [](std::uint32_t) { return Fd(); }}, *world.loop, world.log,
            world.metrics, world.clock));
    }
    static void request(fake::Ring& ring, unsigned) { ring.chain().append_writable(256).build(); }
};

class Mmio {
  public:
    Mmio(World& world, Device& device)
        : transport_(
              std::move(*MmioTransport::create("test", device, world.memory.guest(), *world.loop,
                                               line_, world.metrics, world.log))) {}
    TransportCore& core() { return transport_->core(); }
    [[nodiscard]] Result<SavedMmioWindow> save() { return transport_->save(); }
    [[nodiscard]] Result<> restore(const SavedMmioWindow& s) { return transport_->restore(s); }
    static SavedMmioWindow decode(PlainReader& reader) { return get_mmio_window(reader); }

  private:
    QuietLine line_;
    std::unique_ptr<MmioTransport> transport_;
};

class Pci {
  public:
    Pci(World& world, Device& device)
        : transport_(
              std::move(*PciTransport::create("test", device, world.memory.guest(), *world.loop,
                                              bank_, nullptr, world.metrics, world.log))) {}
    TransportCore& core() { return transport_->core(); }
    [[nodiscard]] Result<SavedPciFunction> save() { return transport_->save_function(); }
    [[nodiscard]] Result<> restore(const SavedPciFunction& s) {
        return transport_->restore_function(s);
    }
    static SavedPciFunction decode(PlainReader& reader) { return get_pci_function(reader); }

  private:
    pci::fake::RecordingBank bank_;
    std::unique_ptr<PciTransport> transport_;
};

template <class Saved>
std::vector<std::byte> bytes_of(const Saved& saved) {
    PlainWriter writer;
    put(writer, saved);
    return std::move(writer).take();
}

// One device behind one transport.
template <class Kind, class Transport>
struct Side {
    explicit Side(World& world) : device(Kind::make(world)), transport(world, *device) {}

    void bring_up(const fake::Ring& ring) {
        auto& core = transport.core();
        const std::lock_guard lock(core.mutex());
        core.set_status(status::acknowledge | status::driver);
        core.select_driver_features(0);
        core.set_driver_features(static_cast<std::uint32_t>(ring.features()));
        core.select_driver_features(1);
        core.set_driver_features(static_cast<std::uint32_t>(ring.features() >> 32));
        core.set_status(0x0b);
        core.select_queue(0);
        core.set_queue_size(ring.size());
        core.set_queue_address(RingPart::DescTable, ring.config().desc_table.value);
        core.set_queue_address(RingPart::Avail, ring.config().avail.value);
        core.set_queue_address(RingPart::Used, ring.config().used.value);
        core.enable_queue();
        core.set_status(0x0f);
    }
    std::uint8_t status_now() {
        const std::lock_guard lock(transport.core().mutex());
        return transport.core().status();
    }

    std::unique_ptr<Device> device;
    Transport transport;
};

int take_all(fake::Ring& ring) {
    int taken = 0;
    while (ring.take_used())
        ++taken;
    return taken;
}

constexpr std::uint64_t features = feature_version_1 | feature_event_idx | feature_indirect_desc;

template <class K, class T>
struct Pair {
    using Kind = K;
    using Transport = T;
};

}  // namespace

TEST_CASE_TEMPLATE("saved, restored and saved again, a device gives the same bytes", P,
                   Pair<RngKind, Mmio>, Pair<RngKind, Pci>, Pair<BlockKind, Mmio>,
                   Pair<BlockKind, Pci>, Pair<NetKind, Mmio>, Pair<NetKind, Pci>,
                   Pair<VsockKind, Mmio>, Pair<VsockKind, Pci>) {
    // Before the driver came, just after it, with requests under way, and with one that waits.
    for (int stage = 0; stage < 5; ++stage) {
        World world;
        fake::Ring ring(world.memory, 16, features);
        Side<typename P::Kind, typename P::Transport> original(world);
        if (stage > 0)
            original.bring_up(ring);
        for (unsigned i = 0; stage > 1 && i < 4; ++i)
            P::Kind::request(ring, i);
        original.transport.core().notify(0);
        world.settle(stage == 2 ? 1 : stage == 3 ? 2 : stage == 4 ? 16 : 0);
        const auto saved = original.transport.save();
        REQUIRE_MESSAGE(saved, saved.error().message);
        const auto bytes = bytes_of(*saved);
        PlainReader reader(bytes, "test");
        const auto decoded = P::Transport::decode(reader);
        REQUIRE(reader.finish());
        Side<typename P::Kind, typename P::Transport> copy(world);
        const auto restored = copy.transport.restore(decoded);
        REQUIRE_MESSAGE(restored, restored.error().message);
        CHECK(bytes_of(*copy.transport.save()) == bytes);
    }
}

TEST_CASE_TEMPLATE("a device restored in the middle of its work does each request once", P,
                   Pair<RngKind, Mmio>, Pair<RngKind, Pci>, Pair<BlockKind, Mmio>,
                   Pair<BlockKind, Pci>, Pair<NetKind, Mmio>, Pair<NetKind, Pci>) {
    for (const int turns : {0, 1, 2, 3, 16})
        for (const bool original_goes_on : {false, true}) {
            World world;
            fake::Ring ring(world.memory, 32, features);
            using Pairing = Side<typename P::Kind, typename P::Transport>;
            auto original = std::make_unique<Pairing>(world);
            original->bring_up(ring);
            for (unsigned i = 0; i < 6; ++i)
                P::Kind::request(ring, i);
            original->transport.core().notify(0);
            world.settle(turns);
            const auto saved = original->transport.save();
            REQUIRE(saved);
            CHECK(take_all(ring) <= 2);
            std::unique_ptr<Pairing> copy;
            if (!original_goes_on) {
                copy = std::make_unique<Pairing>(world);
                REQUIRE(copy->transport.restore(*saved));
                // It would drain on the way out; its part is over.
                const std::lock_guard lock(original->transport.core().mutex());
                original->transport.core().set_status(0);
            }
            auto& going_on = copy ? *copy : *original;
            for (int i = 0; i < 200 && ring.used_index() < 6; ++i) {
                world.clock.time += 1'000'000'000;
                {
                    const std::lock_guard lock(going_on.transport.core().mutex());
                    going_on.device->notify(0);
                }
                world.loop->run_once(5);  // its timer
            }
            CHECK(ring.used_index() == 6);
            CHECK(going_on.status_now() == 0x0f);
        }
}

TEST_CASE_TEMPLATE("a state that does not fit is refused and changes nothing", P,
                   Pair<RngKind, Mmio>, Pair<BlockKind, Pci>, Pair<NetKind, Pci>,
                   Pair<VsockKind, Mmio>) {
    World world;
    fake::Ring ring(world.memory, 16, features);
    Side<typename P::Kind, typename P::Transport> original(world);
    original.bring_up(ring);
    const auto good = *original.transport.save();
    const auto refused = [&](auto spoil) {
        auto bad = good;
        spoil(bad.core);
        Side<typename P::Kind, typename P::Transport> copy(world);
        const auto restored = copy.transport.restore(bad);
        CHECK(copy.status_now() == 0);
        return !restored && !restored.error().message.empty();
    };
    CHECK(refused([](CoreState& core) { core.queues.emplace_back(); }));
    CHECK(refused([](CoreState& core) { core.queues.clear(); }));
    CHECK(refused([](CoreState& core) { core.registers.accepted |= 1ULL << 60; }));
    CHECK(refused([](CoreState& core) { core.registers.status = 0; }));
    CHECK(refused([](CoreState& core) { core.queues[0].size = 3; }));
    CHECK(refused([](CoreState& core) { core.queues[0].size = 32768; }));
    CHECK(refused([](CoreState& core) { core.queues[0].desc_table = ~0ULL << 12; }));
    CHECK(refused([](CoreState& core) { core.queues[0].used = 0; }));
    CHECK(refused([](CoreState& core) { core.device.resize(3); }));
}

TEST_CASE("a device that waits for its reset is restored waiting") {
    World world;
    fake::Ring ring(world.memory, 16, features);
    Side<BlockKind, Mmio> original(world);
    original.bring_up(ring);
    ring.make_available(900);  // no such descriptor
    original.transport.core().notify(0);
    world.settle();
    CHECK((original.status_now() & status::device_needs_reset) != 0);
    const auto saved = original.transport.save();
    REQUIRE(saved);
    Side<BlockKind, Mmio> copy(world);
    REQUIRE(copy.transport.restore(*saved));
    CHECK(copy.status_now() == original.status_now());
    copy.transport.core().notify(0);
    world.settle();
    {
        const std::lock_guard lock(copy.transport.core().mutex());
        copy.transport.core().set_status(0);
    }
    fake::Ring fresh(world.memory, 16, features);
    copy.bring_up(fresh);
    BlockKind::request(fresh, 1);
    copy.transport.core().notify(0);
    world.settle();
    CHECK(take_all(fresh) == 1);
}

}  // namespace masu::virtio

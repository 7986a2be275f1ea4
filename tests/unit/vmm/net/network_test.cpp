// An interface as the monitor holds it: what happens to its flows and its log as time passes.
#include "vmm/net/network.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>

#include "base/fd.hpp"
#include "devices/net/firewall/wire.hpp"
#include "tests/unit/devices/net/firewall/interface.hpp"
#include "tests/unit/devices/virtio/fake_driver.hpp"

using namespace masu;
using namespace masu::net;

namespace {

struct FakeClock final : Clock {
    Nanoseconds time = 1'000 * fake::second;
    [[nodiscard]] Nanoseconds now() const noexcept override { return time; }
    [[nodiscard]] std::uint64_t wall() const noexcept override {
        return 1'700'000'000 * fake::second + time;
    }
};

// An interface of passt, whose other end the test holds, with everything admitted.
struct Rig {
    FakeClock clock;
    std::unique_ptr<EventLoop> loop = std::move(*EventLoop::create());
    Log log;
    Metrics metrics;
    MetadataStore store{4096};
    Fd peer;
    std::unique_ptr<NetworkInterface> interface;
    std::unique_ptr<VirtioNet> device;

    explicit Rig(std::optional<std::string> network_mac = std::nullopt) {
        int ends[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
        peer = Fd(ends[0]);
        NetworkInterfaceConfig config{
            .iface_id = "net0",
            .host_dev_name = {},
            .guest_mac = to_string(fake::guest_mac),
            .passt_fd = ends[1],
            .network_mac = std::move(network_mac),
            .guest_network = GuestNetworkConfig{.address = "10.0.0.10/24"},
            .firewall = true};
        auto opened = NetworkInterface::open(config);
        REQUIRE(opened);
        interface = *std::move(opened);
        RuleSet rules;
        rules.rules.push_back(
            {.id = "out", .direction = Direction::Egress, .peer = Prefix{Address::v4(0), 0}});
        REQUIRE(interface->set_rules(*compile(rules, {})));
        VmConfig vm;
        vm.network_interfaces.push_back(config);
        auto made = interface->make_device(vm, store, host());
        REQUIRE(made);
        device = *std::move(made);
    }
    NetworkHost host() { return {.loop = *loop, .log = log, .metrics = metrics, .clock = clock}; }

    Verdict judge(std::string_view packet) {
        const auto frame = fake::ethernet(fake::guest_mac, fake::gateway_mac, 0x0800,
                                          fake::PacketText(packet, fake::hosts()).read());
        return interface->firewall()->judge(
            Direction::Egress, {frame, static_cast<std::uint32_t>(frame.size())}, clock.time);
    }
    // Lets the loop run until then; false when that takes impossibly long.
    bool run_until(const std::function<bool()>& done) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        while (!done() && std::chrono::steady_clock::now() < end)
            loop->run_once(100);
        return done();
    }
};

}  // namespace

TEST_CASE("idle flows are dropped while the loop runs, though no packet comes") {
    Rig rig;
    CHECK(rig.interface->expire_flows(rig.clock.time) == 10 * fake::second);
    CHECK(rig.judge("udp I:5000>C:53").reason == Reason::NewFlow);
    CHECK(rig.judge("tcp I:5000>C:443 S").reason == Reason::NewFlow);
    CHECK(rig.interface->expire_flows(rig.clock.time) == fake::second);
    rig.clock.time += 31 * fake::second;
    auto& firewall = *rig.interface->firewall();
    // A new device is the next boot's: the timer is the interface's and goes on.
    rig.device.reset();
    CHECK(rig.run_until([&] { return firewall.flow_count() == 1; }));
    rig.clock.time += 90 * fake::second;
    CHECK(rig.run_until([&] { return firewall.flow_count() == 0; }));
    CHECK(firewall.flow_memory() == 0);
}

TEST_CASE("a window of the flow log ends when its time is up, with and without packets") {
    Rig rig;
    const auto path = (std::filesystem::temp_directory_path() /
                       ("masu-network-test-" + std::to_string(::getpid())))
                          .string();
    REQUIRE(
        rig.interface->set_flow_log({.path = path,
                                     .format = "${account-id} ${srcport} ${action} ${log-status}",
                                     .interval = 1,
                                     .account_id = "123456789012"},
                                    rig.host()));
    CHECK(rig.judge("tcp I:5000>C:443 S").reason == Reason::NewFlow);
    const auto lines = [&] {
        std::ifstream file(path);
        return std::string(std::istreambuf_iterator<char>(file), {});
    };
    CHECK(rig.run_until([&] { return lines().contains("NODATA"); }));
    CHECK(lines().starts_with("123456789012 5000 ACCEPT OK\n123456789012 - - NODATA\n"));
    std::filesystem::remove(path);
}

namespace {

// A driver with one receive and one transmit queue, and the network behind passt's framing.
struct Driven : Rig {
    explicit Driven(std::optional<std::string> network_mac) : Rig(std::move(network_mac)) {
        std::vector<std::optional<virtio::Queue>> queues;
        for (auto* ring : {&rx, &tx})
            queues.emplace_back(ring->make_queue());
        const std::lock_guard lock(device->mutex());
        device->activate({.memory = &memory.guest(),
                          .features = virtio::feature_version_1,
                          .queues = std::move(queues),
                          .driver = &driver});
    }
    // What the network gets to see of a frame; empty: nothing.
    fake::Bytes sent(const fake::Bytes& frame) {
        tx.chain().append_readable(fake::Bytes(sizeof(NetHeader))).append_readable(frame).build();
        {
            const std::lock_guard lock(device->mutex());
            device->notify(1);
        }
        fake::Bytes got(2048);
        const auto size = ::recv(peer.get(), got.data(), got.size(), MSG_DONTWAIT);
        got.resize(size < 4 ? 4 : static_cast<std::size_t>(size));
        return {got.begin() + 4, got.end()};
    }
    // What the guest gets to see of a frame.
    fake::Bytes received(const fake::Bytes& frame) {
        const auto built = rx.chain().append_writable(2048).build();
        fake::Bytes framed(4);
        put32(framed.data(), static_cast<std::uint32_t>(frame.size()));
        fake::add(framed, frame);
        REQUIRE(::send(peer.get(), framed.data(), framed.size(), 0) ==
                static_cast<ssize_t>(framed.size()));
        {
            const std::lock_guard lock(device->mutex());
            device->notify(0);
        }
        const auto used = rx.take_used();
        if (!used)
            return {};
        auto bytes = rx.written(built);
        bytes.resize(used->length);
        return {bytes.begin() + sizeof(NetHeader), bytes.end()};
    }

    struct Quiet final : virtio::Driver {
        void interrupt_queue(std::uint16_t) override {}
        void interrupt_config() override {}
        void fault(std::string_view why) override { FAIL(why); }
    };
    virtio::fake::Memory memory{8 * MiB};
    virtio::fake::Ring rx{memory, 64, virtio::feature_version_1};
    virtio::fake::Ring tx{memory, 64, virtio::feature_version_1};
    Quiet driver;
};

}  // namespace

TEST_CASE("a copied guest is judged by the MAC it has, and known by the network's") {
    constexpr MacAddress known{6, 0xaa, 0xbb, 0xcc, 0xdd, 0xee};
    Driven rig(to_string(known));
    std::array<std::byte, 6> told{};
    rig.device->read_config(0, told);
    CHECK(get_mac(told.data()) == fake::guest_mac);
    const auto frame = [](const MacAddress& from, const MacAddress& to, std::string_view packet) {
        return fake::ethernet(from, to, 0x0800, fake::PacketText(packet, fake::hosts()).read());
    };
    const auto* out = "udp I:5000>C:53";
    CHECK(rig.sent(frame(fake::guest_mac, fake::gateway_mac, out)) ==
          frame(known, fake::gateway_mac, out));
    // An answer comes to the network's MAC; one to the guest's is somebody else's.
    const auto* in = "udp C:53>I:5000";
    CHECK(rig.received(frame(fake::gateway_mac, known, in)) ==
          frame(fake::gateway_mac, fake::guest_mac, in));
    CHECK(rig.received(frame(fake::gateway_mac, fake::guest_mac, in)).empty());
    // Nobody's MAC but its own is the guest's to send from, not even the one it is known by.
    CHECK(rig.sent(frame(known, fake::gateway_mac, out)).empty());
    CHECK(rig.interface->firewall()->counters().packets[std::to_underlying(Reason::SourceMac)] ==
          1);
}

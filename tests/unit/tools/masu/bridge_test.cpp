// The bridge of a network, with the kernel's own: who hears which frame, and what is left when the
// VMs have ended. Needs network namespaces and /dev/net/tun, and says so where it has none.
#include "tools/masu/bridge.hpp"

#include <doctest/doctest.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <optional>

#include "devices/net/firewall/wire.hpp"
#include "devices/net/net_header.hpp"
#include "devices/net/services/packet_writer.hpp"

namespace masu::cli {
namespace {

using net::Bytes;
using net::MacAddress;
using net::PacketWriter;

constexpr MacAddress mac_a{6, 2, 0, 0, 0, 1};
constexpr MacAddress mac_b{6, 2, 0, 0, 0, 2};
constexpr MacAddress mac_c{6, 2, 0, 0, 0, 3};
constexpr MacAddress nobody{6, 2, 0, 0, 0, 9};
constexpr MacAddress everyone{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
constexpr std::uint16_t experiment = 0x88b5;  // IEEE 802, local experimental EtherType 1
constexpr int long_wait_ms = 10'000;
constexpr std::size_t header_size = sizeof(net::NetHeader);

std::optional<Bridge> make_bridge() {
    if (const auto possible = Bridge::probe(); !possible) {
        MESSAGE("skipped, no bridge here: " << possible.error().message);
        return std::nullopt;
    }
    auto bridge = Bridge::create(1500);
    REQUIRE_MESSAGE(bridge, bridge.error().message);
    return std::move(*bridge);
}

// A VM's end: what its monitor does with the TAP.
struct Vm {
    Vm(Bridge& bridge, const MacAddress& own, unsigned queues = 1) : mac(own) {
        auto added = bridge.add_port(mac, queues);
        REQUIRE_MESSAGE(added, added.error().message);
        port = *std::move(added);
        constexpr int size = header_size;
        for (const auto& queue : port.queues)
            REQUIRE(::ioctl(queue.get(), TUNSETVNETHDRSZ, &size) == 0);
    }
    void send(const MacAddress& from, const MacAddress& to, std::string_view text) const {
        Bytes frame;
        PacketWriter(frame).zeros(header_size).mac(to).mac(from).u16(experiment).text(text);
        frame.resize(std::max(frame.size(), header_size + 60));
        CHECK(::write(port.queues[0].get(), frame.data(), frame.size()) ==
              static_cast<ssize_t>(frame.size()));
    }
    // The text of the next frame of ours on any queue; empty when none comes.
    [[nodiscard]] std::string next() const {
        for (;;) {
            const auto frame = receive();
            if (frame.empty())
                return {};
            if (frame.size() < header_size + 60 ||
                net::get16(&frame[header_size + 12]) != experiment)
                continue;
            const auto* text = reinterpret_cast<const char*>(&frame[header_size + 14]);
            return {text, ::strnlen(text, 46)};
        }
    }
    [[nodiscard]] Bytes receive() const {
        std::vector<pollfd> entries;
        for (const auto& queue : port.queues)
            entries.push_back({queue.get(), POLLIN, 0});
        if (::poll(entries.data(), entries.size(), long_wait_ms) <= 0)
            return {};
        const auto ready = std::ranges::find_if(
            entries, [](const pollfd& entry) { return (entry.revents & POLLIN) != 0; });
        Bytes frame(128 * 1024);
        const auto size =
            ready == entries.end() ? -1 : ::read(ready->fd, frame.data(), frame.size());
        frame.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
        return frame;
    }

    MacAddress mac;
    Bridge::Port port;
};

bool has_link(Bridge& bridge, int index) {
    const auto links = bridge.links();
    REQUIRE(links);
    return std::ranges::find(*links, index, &Link::index) != links->end();
}

}  // namespace

TEST_CASE("a frame goes to the port of its MAC, and broadcast to all") {
    auto bridge = make_bridge();
    if (!bridge)
        return;
    const Vm a(*bridge, mac_a);
    const Vm b(*bridge, mac_b, 4);
    const Vm c(*bridge, mac_c);
    CHECK(b.port.queues.size() == 4);
    a.send(mac_a, mac_b, "to b");
    a.send(mac_a, nobody, "to nobody");
    a.send(mac_a, everyone, "to all");
    // In the order they were sent, so what is missing before the broadcast never came.
    CHECK(c.next() == "to all");
    std::vector<std::string> heard{b.next(), b.next()};
    std::ranges::sort(heard);  // of two queues
    CHECK(heard == std::vector<std::string>{"to all", "to b"});
    b.send(mac_b, mac_a, "back");
    CHECK(a.next() == "back");
}

TEST_CASE("who claims another's MAC is not heard, and does not get its frames") {
    auto bridge = make_bridge();
    if (!bridge)
        return;
    const Vm a(*bridge, mac_a);
    const Vm b(*bridge, mac_b);
    const Vm c(*bridge, mac_c);
    c.send(mac_b, mac_a, "forged");
    c.send(nobody, mac_a, "made up");
    c.send(mac_c, mac_a, "honest");
    CHECK(a.next() == "honest");
    a.send(mac_a, mac_b, "for b");
    a.send(mac_a, everyone, "end");
    CHECK(b.next() == "for b");
    CHECK(c.next() == "end");
}

TEST_CASE("a segment that is left to the receiver crosses the bridge whole") {
    auto bridge = make_bridge();
    if (!bridge)
        return;
    const Vm a(*bridge, mac_a);
    const Vm b(*bridge, mac_b);
    REQUIRE(::ioctl(b.port.queues[0].get(), TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) == 0);
    constexpr std::size_t payload = 30'000;
    Bytes tcp;
    PacketWriter(tcp).u16(1000).u16(2000).u32(1).u32(1).u8(0x50).u8(0x10).u16(65535).u32(0).zeros(
        payload);
    Bytes packet;
    net::write_packet(packet,
                      {.from_mac = mac_a,
                       .to_mac = mac_b,
                       .from = net::Address::v4(0x0ac90004),
                       .to = net::Address::v4(0x0ac90005)},
                      net::protocol_tcp, tcp, 16);
    net::NetHeader header;
    header.flags = net::hdr_f_needs_csum;
    header.gso_type = net::gso_tcpv4;
    header.hdr_len = 54;
    header.gso_size = 1460;
    header.csum_start = 34;
    header.csum_offset = 16;
    Bytes frame;
    PacketWriter(frame).bytes(std::as_bytes(std::span(&header, 1))).bytes(packet);
    REQUIRE(::write(a.port.queues[0].get(), frame.data(), frame.size()) ==
            static_cast<ssize_t>(frame.size()));
    const auto got = b.receive();
    CHECK(got.size() == frame.size());
}

TEST_CASE("a VM that ends takes its TAP along, is noticed, and its MAC may come again") {
    auto bridge = make_bridge();
    if (!bridge)
        return;
    const auto events = watch_links();
    REQUIRE(events);
    const Vm a(*bridge, mac_a);
    auto b = std::make_optional<Vm>(*bridge, mac_b);
    const int index = b->port.index;
    CHECK(has_link(*bridge, index));
    drain_link_events(*events);
    b.reset();
    pollfd entry{events->get(), POLLIN, 0};
    CHECK(::poll(&entry, 1, long_wait_ms) == 1);
    CHECK_FALSE(has_link(*bridge, index));
    CHECK(has_link(*bridge, a.port.index));
    const Vm again(*bridge, mac_b);
    a.send(mac_a, mac_b, "hello again");
    CHECK(again.next() == "hello again");
}

TEST_CASE("counters are those of the port") {
    auto bridge = make_bridge();
    if (!bridge)
        return;
    const Vm a(*bridge, mac_a);
    const Vm b(*bridge, mac_b);
    for (int i = 0; i < 5; ++i)
        a.send(mac_a, mac_b, "x");
    for (int i = 0; i < 5; ++i)
        CHECK(b.next() == "x");
    const auto links = bridge->links();
    REQUIRE(links);
    const auto of = [&](const Vm& vm) {
        return std::ranges::find(*links, vm.port.index, &Link::index)->counters;
    };
    CHECK(of(a).received_packets == 5);
    CHECK(of(a).received_bytes == 300);
    CHECK(of(b).sent_packets == 5);
}

}  // namespace masu::cli

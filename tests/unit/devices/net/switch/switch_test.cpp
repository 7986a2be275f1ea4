// The switch: who may send what from a port, which port a frame goes to, and what a slow receiver
// costs.
#include <doctest/doctest.h>
#include <sys/socket.h>

#include "devices/net/switch/frame_switch.hpp"
#include "tests/unit/devices/net/firewall/frames.hpp"

namespace masu::net {
namespace {

using namespace fake;

constexpr MacAddress everyone{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
constexpr MacAddress mac_a{0x06, 1, 10, 0, 0, 4};
constexpr MacAddress mac_b{0x06, 1, 10, 0, 0, 5};
constexpr MacAddress mac_c{0x06, 1, 10, 0, 0, 6};
const PortAddresses a{mac_a, address("10.0.0.4"), address("fd00::4")};
const PortAddresses b{mac_b, address("10.0.0.5"), address("fd00::5")};
const PortAddresses c{mac_c, address("10.0.0.6"), {}};

Bytes packet(const PortAddresses& from, const MacAddress& to, std::string_view text) {
    const Names names{{"A", "10.0.0.4"}, {"B", "10.0.0.5"},
                      {"C", "10.0.0.6"}, {"A6", "fd00::4"},
                      {"B6", "fd00::5"}, {"C6", "fd00::6"},
                      {"L6", "fe80::9"}, {"own", to_string(link_local_of(mac_a))}};
    const auto ip = PacketText(text, names).read();
    return ethernet(from.mac, to, ethertype_of(ip), ip);
}

Bytes arp(const MacAddress& from, const MacAddress& to, int operation, const MacAddress& sender_mac,
          std::string_view sender, std::string_view target) {
    Bytes message;
    add16(message, 1);
    add16(message, 0x0800);
    add8(message, 6);
    add8(message, 4);
    add16(message, static_cast<unsigned>(operation));
    add_mac(message, sender_mac);
    add_address(message, address(sender));
    add_mac(message, {});
    add_address(message, address(target));
    return ethernet(from, to, 0x0806, message);
}

// A neighbour message about `target`, with a link-layer address option.
Bytes discovery(const MacAddress& from, int type, std::string_view source,
                std::string_view destination, std::string_view target, const MacAddress& link,
                const MacAddress& to = {0x33, 0x33, 0xff, 0, 0, 5}) {
    Bytes message;
    add8(message, static_cast<unsigned>(type));
    add8(message, 0);
    add16(message, 0);
    add32(message, 0);
    add_address(message, address(target));
    if (address(source) != address("::")) {
        add8(message, type == 136 ? 2 : 1);
        add8(message, 1);
        add_mac(message, link);
    }
    const IpFields fields{.source = address(source),
                          .destination = address(destination),
                          .protocol = protocol::icmpv6,
                          .hop_limit = 255};
    return ethernet(from, to, 0x86dd, ip(fields, message));
}

struct Table {
    Table() {
        REQUIRE(table.add(1, a));
        REQUIRE(table.add(2, b));
        REQUIRE(table.add(3, c));
    }
    // The port, or why there is none.
    std::string from_a(const Bytes& frame) const {
        const auto route = table.route(1, frame);
        return route.drop == SwitchDrop::None ? std::to_string(route.to)
                                              : std::string(to_string(route.drop));
    }
    SwitchTable table;
};

}  // namespace

TEST_CASE("a frame goes to the port that has its destination MAC, and to no other") {
    const Table ports;
    CHECK(ports.from_a(packet(a, mac_b, "tcp A:40000>B:80 S")) == "2");
    CHECK(ports.from_a(packet(a, mac_c, "icmp A>C 8/0")) == "3");
    CHECK(ports.from_a(packet(a, mac_b, "udp A6:53>B6:53")) == "2");
    CHECK(ports.from_a(packet(a, mac_a, "icmp A>A 8/0")) == "no_such_port");
    CHECK(ports.from_a(packet(a, {6, 9, 9, 9, 9, 9}, "icmp A>B 8/0")) == "no_such_port");
    CHECK(ports.from_a(packet(a, everyone, "udp A:1>10.0.0.255:2")) == "multicast");
    CHECK(ports.from_a(packet(a, {1, 0, 0x5e, 0, 0, 0xfb}, "udp A:1>224.0.0.251:2")) ==
          "multicast");
}

TEST_CASE("a port sends from its lease and from nothing else") {
    const Table ports;
    CHECK(ports.from_a(packet(c, mac_b, "icmp A>B 8/0")) == "source_mac");
    CHECK(ports.from_a(packet(a, mac_b, "icmp C>B 8/0")) == "source_address");
    CHECK(ports.from_a(packet(a, mac_b, "icmpv6 C6>B6 128/0")) == "source_address");
    CHECK(ports.from_a(packet(a, mac_b, "icmpv6 L6>B6 128/0")) == "source_address");
    CHECK(ports.from_a(packet(a, mac_b, "udp 0.0.0.0:68>B:67")) == "source_address");
    CHECK(ports.from_a(packet(a, mac_b, "icmpv6 own>B6 128/0")) == "2");
    auto tagged = packet(a, mac_b, "icmp A>B 8/0");
    tagged[12] = std::byte{0x81};
    tagged[13] = std::byte{0};
    CHECK(ports.from_a(tagged) == "malformed");
    CHECK(ports.from_a(Bytes(14)) == "malformed");
    CHECK(ports.table.route(9, packet(a, mac_b, "icmp A>B 8/0")).drop == SwitchDrop::Malformed);
}

TEST_CASE("ARP: a request goes to who is asked for; nobody speaks for another") {
    const Table ports;
    CHECK(ports.from_a(arp(mac_a, everyone, 1, mac_a, "10.0.0.4", "10.0.0.5")) == "2");
    CHECK(ports.from_a(arp(mac_a, everyone, 1, mac_a, "0.0.0.0", "10.0.0.6")) == "3");
    CHECK(ports.from_a(arp(mac_a, everyone, 1, mac_a, "10.0.0.4", "10.0.0.4")) == "no_such_port");
    CHECK(ports.from_a(arp(mac_a, everyone, 1, mac_a, "10.0.0.4", "10.0.0.9")) == "no_such_port");
    CHECK(ports.from_a(arp(mac_a, mac_b, 2, mac_a, "10.0.0.4", "10.0.0.5")) == "2");
    CHECK(ports.from_a(arp(mac_a, everyone, 2, mac_a, "10.0.0.4", "10.0.0.5")) == "multicast");
    CHECK(ports.from_a(arp(mac_a, mac_b, 2, mac_a, "10.0.0.6", "10.0.0.5")) == "neighbor_spoof");
    CHECK(ports.from_a(arp(mac_a, mac_b, 2, mac_a, "0.0.0.0", "10.0.0.5")) == "neighbor_spoof");
    CHECK(ports.from_a(arp(mac_a, everyone, 1, mac_c, "10.0.0.4", "10.0.0.5")) == "neighbor_spoof");
    CHECK(ports.from_a(arp(mac_c, everyone, 1, mac_c, "10.0.0.4", "10.0.0.5")) == "source_mac");
}

TEST_CASE("neighbour discovery: likewise; and no router's messages") {
    const Table ports;
    const auto* group = "ff02::1:ff00:5";
    CHECK(ports.from_a(discovery(mac_a, 135, "fd00::4", group, "fd00::5", mac_a)) == "2");
    CHECK(ports.from_a(discovery(mac_a, 135, "::", group, "fd00::5", mac_a)) == "2");
    CHECK(ports.from_a(discovery(mac_a, 135, "::", group, "fd00::4", mac_a)) == "no_such_port");
    CHECK(ports.from_a(discovery(mac_a, 135, "fd00::6", group, "fd00::5", mac_a)) ==
          "source_address");
    CHECK(ports.from_a(discovery(mac_a, 135, "fd00::4", group, "fd00::5", mac_c)) ==
          "neighbor_spoof");
    CHECK(ports.from_a(discovery(mac_a, 136, "fd00::4", "fd00::5", "fd00::4", mac_a, mac_b)) ==
          "2");
    CHECK(ports.from_a(discovery(mac_a, 136, "fd00::4", "fd00::5", "fd00::6", mac_a, mac_b)) ==
          "neighbor_spoof");
    CHECK(ports.from_a(discovery(mac_a, 136, "fd00::4", "ff02::1", "fd00::4", mac_a)) ==
          "multicast");
    // Its second half is the option that an advertisement has there.
    CHECK(ports.from_a(discovery(mac_a, 134, to_string(link_local_of(mac_a)), "ff02::1",
                                 "::101:601:a00:4", mac_a)) == "neighbor_spoof");
}

TEST_CASE("no two ports share an address, and one that is gone can be had again") {
    Table ports;
    CHECK_FALSE(ports.table.add(4, {mac_a, address("10.0.0.7"), {}}));
    CHECK_FALSE(ports.table.add(4, {{6, 1, 1, 1, 1, 1}, address("10.0.0.4"), {}}));
    CHECK_FALSE(ports.table.add(4, {{6, 1, 1, 1, 1, 1}, address("10.0.0.7"), a.ipv6}));
    CHECK_FALSE(ports.table.add(4, {everyone, address("10.0.0.7"), {}}));
    CHECK(ports.table.size() == 3);
    ports.table.remove(2);
    CHECK(ports.from_a(packet(a, mac_b, "icmp A>B 8/0")) == "no_such_port");
    CHECK(ports.from_a(arp(mac_a, everyone, 1, mac_a, "10.0.0.4", "10.0.0.5")) == "no_such_port");
    REQUIRE(ports.table.add(4, b));
    CHECK(ports.from_a(packet(a, mac_b, "icmp A>B 8/0")) == "4");
}

TEST_CASE("the number of ports is bounded") {
    SwitchTable table;
    for (std::uint32_t i = 0; i < SwitchTable::max_ports; ++i)
        REQUIRE(table.add(
            i, {{6, 0, 0, 0, static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i)},
                Address::v4(0x0a000000 + i),
                {}}));
    CHECK_FALSE(table.add(9999, a));
}

// --- over sockets -------------------------------------------------------------------------------

namespace {

struct Wires {
    Wires()
        : loop(std::move(*EventLoop::create())),
          hub(*loop, [this](const auto& port) { left.push_back(port.name); }) {}
    Fd join(const std::string& name, const PortAddresses& addresses) {
        int ends[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
        Fd theirs(ends[0]);
        REQUIRE(hub.add(Fd(ends[1]), name, addresses));
        return theirs;
    }
    void settle() {
        for (int i = 0; i < 50; ++i)
            loop->run_once(0);
    }
    const PortCounters& counters(const std::string& name) {
        all = hub.ports();
        for (const auto& port : all)
            if (port.name == name)
                return port.counters;
        throw std::invalid_argument(name);
    }
    std::vector<std::string> left;
    std::unique_ptr<EventLoop> loop;
    FrameSwitch hub;
    std::vector<FrameSwitch::Port> all;
};

Bytes framed(const Bytes& frame) {
    Bytes bytes;
    add32(bytes, static_cast<std::uint32_t>(frame.size()));
    add(bytes, frame);
    return bytes;
}

void put(const Fd& socket, const Bytes& bytes) {
    REQUIRE(::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(bytes.size()));
}

Bytes get(const Fd& socket) {
    Bytes bytes(1 << 20);
    const auto got = ::recv(socket.get(), bytes.data(), bytes.size(), 0);
    bytes.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return bytes;
}

Bytes large_frame() {
    const IpFields fields{.source = a.ipv4, .destination = b.ipv4, .protocol = protocol::udp};
    return ethernet(mac_a, mac_b, 0x0800, ip(fields, udp(1, 2, Bytes(60'000))));
}

}  // namespace

TEST_CASE("frames pass between sockets whole and in order, however the stream is cut") {
    Wires wires;
    const auto one = wires.join("one", a);
    const auto two = wires.join("two", b);
    const auto three = wires.join("three", c);
    const auto first = framed(packet(a, mac_b, "icmp A>B 8/0 id 1"));
    const auto second = framed(packet(a, mac_b, "icmp A>B 8/0 id 2"));
    for (const auto byte : first) {
        put(one, {byte});
        wires.settle();
    }
    auto both = second;
    add(both, framed(packet(a, mac_b, "icmp C>B 8/0")));
    put(one, both);
    wires.settle();
    auto expected = first;
    add(expected, second);
    CHECK(get(two) == expected);
    CHECK(get(three).empty());
    CHECK(wires.counters("one").received_frames == 3);
    CHECK(wires.counters("one").dropped[static_cast<std::size_t>(SwitchDrop::SourceAddress)] == 1);
    CHECK(wires.counters("two").sent_frames == 2);
}

TEST_CASE("a receiver that does not read costs nobody else anything, and is counted") {
    Wires wires;
    const auto one = wires.join("one", a);
    const auto slow = wires.join("slow", b);
    const auto quick = wires.join("quick", c);
    const auto frame = framed(large_frame());
    int sent = 0;
    for (; sent < 100; ++sent) {
        put(one, frame);
        wires.settle();
    }
    put(one, framed(packet(a, mac_c, "icmp A>C 8/0")));
    wires.settle();
    CHECK(get(quick) == framed(packet(a, mac_c, "icmp A>C 8/0")));
    const auto dropped = wires.counters("slow").dropped[static_cast<std::size_t>(SwitchDrop::Slow)];
    const auto passed = wires.counters("slow").sent_frames;
    CHECK(dropped > 0);
    CHECK(dropped + passed == 100);
    // What was let in arrives whole once it reads, and so does what comes after.
    Bytes all;
    for (int i = 0; i < 100; ++i) {
        add(all, get(slow));
        wires.settle();
    }
    REQUIRE(all.size() == passed * frame.size());
    for (std::size_t i = 0; i < passed; ++i)
        CHECK(std::ranges::equal(std::span(all).subspan(i * frame.size(), frame.size()), frame));
    put(one, frame);
    wires.settle();
    CHECK(get(slow) == frame);
}

TEST_CASE("an end that hangs up, or loses its step, is put out") {
    Wires wires;
    auto one = wires.join("one", a);
    auto two = wires.join("two", b);
    const auto three = wires.join("three", c);
    put(one, framed(packet(a, mac_b, "icmp A>B 8/0")));
    one.reset();
    wires.settle();
    CHECK(get(two) == framed(packet(a, mac_b, "icmp A>B 8/0")));  // what came before still counts
    CHECK(wires.left == std::vector<std::string>{"one"});
    Bytes bad;
    add32(bad, 0xffffffff);
    put(two, bad);
    wires.settle();
    CHECK(wires.left == std::vector<std::string>{"one", "two"});
    CHECK(wires.hub.size() == 1);
    put(three, framed(packet(c, mac_b, "icmp C>B 8/0")));
    wires.settle();
    CHECK(wires.counters("three").dropped[static_cast<std::size_t>(SwitchDrop::NoSuchPort)] == 1);
    const auto again = wires.join("again", b);
    put(three, framed(packet(c, mac_b, "icmp C>B 8/0")));
    wires.settle();
    CHECK(get(again) == framed(packet(c, mac_b, "icmp C>B 8/0")));
}

}  // namespace masu::net

// Reading headers: polite frames, and those that lie about their lengths.
#include "devices/net/firewall/packet.hpp"

#include <doctest/doctest.h>

#include "tests/unit/devices/net/firewall/frames.hpp"

namespace masu::net {
namespace {

using namespace fake;

std::optional<Reason> parse(const Bytes& frame, Packet& packet, std::size_t copied = 1 << 16) {
    return parse_packet({std::span(frame).first(std::min(frame.size(), copied)),
                         static_cast<std::uint32_t>(frame.size())},
                        packet);
}
Bytes framed(const Bytes& packet) {
    return ethernet(guest_mac, gateway_mac, ethertype_of(packet), packet);
}
const Address v4_a = address("192.0.2.1");
const Address v4_b = address("192.0.2.2");
const Address v6_a = address("2001:db8::1");
const Address v6_b = address("2001:db8::2");

Bytes tcp4() {
    return ip({.source = v4_a, .destination = v4_b, .protocol = protocol::tcp}, tcp(1, 2, {}));
}
Bytes extension(std::uint8_t next, std::size_t units = 0) {
    Bytes bytes(8 + 8 * units);
    bytes[0] = static_cast<std::byte>(next);
    bytes[1] = static_cast<std::byte>(units);
    return bytes;
}

}  // namespace

TEST_CASE("a TCP packet is read, and the padding behind it ignored") {
    auto frame = framed(tcp4());
    frame.resize(frame.size() + 6);
    Packet packet;
    REQUIRE_FALSE(parse(frame, packet));
    CHECK(packet.source_mac == guest_mac);
    CHECK(packet.tuple == Tuple{v4_a, v4_b, protocol::tcp, 1, 2});
    CHECK(packet.tcp_flags == tcp_flag::syn);
    CHECK(packet.transport_offset == 34);
    CHECK(packet.payload_offset == 54);
    CHECK(packet.ip_length == 40);
}

TEST_CASE("every frame cut short is refused") {
    const Bytes packets[]{
        tcp4(),
        ip({.source = v6_a, .destination = v6_b, .protocol = protocol::udp}, udp(1, 2)),
        ip({.source = v6_a,
            .destination = v6_b,
            .protocol = protocol::tcp,
            .extensions = extension(protocol::tcp),
            .first_extension = 0},
           tcp(1, 2, {})),
    };
    for (const auto& bytes : packets) {
        const auto frame = framed(bytes);
        Packet packet;
        CHECK_FALSE(parse(frame, packet));
        for (std::size_t size = 0; size < frame.size(); ++size) {
            const Bytes cut(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(size));
            CHECK(parse(cut, packet) == Reason::MalformedFrame);
        }
        // The frame is whole, but not enough of it was copied.
        for (std::size_t size = 0; size < frame.size() - 20; ++size)
            CHECK(parse(frame, packet, size));
    }
}

TEST_CASE("what is not Ethernet with IP or ARP is refused") {
    Packet packet;
    for (const unsigned type : {0x8100U, 0x88a8U, 0x0026U, 0x88ccU, 0x8847U})
        CHECK(parse(ethernet(guest_mac, gateway_mac, static_cast<std::uint16_t>(type), tcp4()),
                    packet) == Reason::UnsupportedFrame);
    // IPv6 under IPv4's EtherType, and the other way round
    const auto v6 = ip({.source = v6_a, .destination = v6_b, .protocol = protocol::udp}, udp(1, 2));
    CHECK(parse(ethernet(guest_mac, gateway_mac, 0x0800, v6), packet) == Reason::MalformedFrame);
    CHECK(parse(ethernet(guest_mac, gateway_mac, 0x86dd, tcp4()), packet) ==
          Reason::MalformedFrame);
}

TEST_CASE("IPv4 options: a source route is refused, others are skipped") {
    const auto with = [](std::initializer_list<unsigned> options) {
        IpFields fields{.source = v4_a, .destination = v4_b, .protocol = protocol::udp};
        for (const auto option : options)
            add8(fields.options, option);
        return framed(ip(fields, udp(5, 6)));
    };
    Packet packet;
    CHECK_FALSE(parse(with({148, 4, 0, 0}), packet));  // router alert
    CHECK(packet.tuple.destination_port == 6);
    CHECK(parse(with({131, 3, 4, 0}), packet) == Reason::UnsupportedFrame);
    CHECK(parse(with({1, 137, 3, 4}), packet) == Reason::UnsupportedFrame);
    CHECK(parse(with({7, 0, 0, 0}), packet) == Reason::MalformedFrame);
    CHECK(parse(with({7, 40, 0, 0}), packet) == Reason::MalformedFrame);
}

TEST_CASE("IPv6 extension headers lead to the transport header, 8 at most") {
    IpFields fields{
        .source = v6_a, .destination = v6_b, .protocol = protocol::udp, .first_extension = 0};
    for (int i = 0; i < 7; ++i)
        add(fields.extensions, extension(60));
    add(fields.extensions, extension(protocol::udp, 1));
    Packet packet;
    REQUIRE_FALSE(parse(framed(ip(fields, udp(5, 6))), packet));
    CHECK(packet.tuple.destination_port == 6);
    CHECK(packet.transport_offset == 14 + 40 + 7 * 8 + 16);

    auto more = extension(60);
    add(more, fields.extensions);
    fields.extensions = more;
    fields.first_extension = 60;
    CHECK(parse(framed(ip(fields, udp(5, 6))), packet) == Reason::UnsupportedFrame);

    // Routing headers, and hop-by-hop options that do not come first.
    fields.first_extension = 43;
    fields.extensions = extension(protocol::udp);
    CHECK(parse(framed(ip(fields, udp(5, 6))), packet) == Reason::UnsupportedFrame);
    fields.first_extension = 60;
    fields.extensions = extension(0);
    add(fields.extensions, extension(protocol::udp));
    CHECK(parse(framed(ip(fields, udp(5, 6))), packet) == Reason::MalformedFrame);
}

TEST_CASE("fragments: tiny firsts, odd lengths and more than 64 KiB are refused") {
    const auto fragment = [](const Address& a, const Address& b, std::uint16_t offset, bool more,
                             std::size_t size) {
        return framed(ip({.source = a,
                          .destination = b,
                          .protocol = protocol::tcp,
                          .is_fragment = true,
                          .id = 9,
                          .offset = offset,
                          .more = more},
                         offset == 0 ? tcp(1, 2, {}, size - 20) : Bytes(size)));
    };
    Packet packet;
    for (const auto& [a, b] : {std::pair(v4_a, v4_b), std::pair(v6_a, v6_b)}) {
        CHECK_FALSE(parse(fragment(a, b, 0, true, 24), packet));
        CHECK(packet.is_fragment);
        CHECK(packet.fragment.length == 24);
        CHECK(packet.tuple.destination_port == 2);
        CHECK_FALSE(parse(fragment(a, b, 24, false, 3), packet));
        CHECK(packet.fragment.offset == 24);
        CHECK(packet.tuple.destination_port == 0);
        CHECK(parse(fragment(a, b, 0, true, 25), packet) == Reason::MalformedFrame);
        CHECK(parse(fragment(a, b, 24, true, 12), packet) == Reason::MalformedFrame);
        CHECK(parse(fragment(a, b, 65528, false, 8), packet) == Reason::MalformedFrame);
    }
    auto tiny = ip({.source = v4_a,
                    .destination = v4_b,
                    .protocol = protocol::tcp,
                    .is_fragment = true,
                    .id = 9,
                    .more = true},
                   Bytes(8));
    CHECK(parse(framed(tiny), packet) == Reason::MalformedFrame);
    // A "fragment" that is the whole datagram is none (RFC 6946).
    CHECK_FALSE(parse(framed(ip({.source = v6_a,
                                 .destination = v6_b,
                                 .protocol = protocol::udp,
                                 .is_fragment = true,
                                 .id = 1},
                                udp(1, 2))),
                      packet));
    CHECK_FALSE(packet.is_fragment);
}

TEST_CASE("UDP and TCP lengths must agree with the packet's") {
    Packet packet;
    auto longer = udp(1, 2);
    longer[5] = std::byte{9};
    CHECK(
        parse(framed(ip({.source = v4_a, .destination = v4_b, .protocol = protocol::udp}, longer)),
              packet) == Reason::MalformedFrame);
    auto offset = tcp(1, 2, {});
    offset[12] = std::byte{0x60};
    CHECK(
        parse(framed(ip({.source = v4_a, .destination = v4_b, .protocol = protocol::tcp}, offset)),
              packet) == Reason::MalformedFrame);
    // One family's ICMP in the other.
    CHECK(parse(framed(ip({.source = v6_a, .destination = v6_b, .protocol = protocol::icmp},
                          icmp(8, 0))),
                packet) == Reason::MalformedFrame);
    CHECK(parse(framed(ip({.source = v4_a, .destination = v4_b, .protocol = protocol::icmpv6},
                          icmp(128, 0))),
                packet) == Reason::MalformedFrame);
}

TEST_CASE("the packet that an ICMP error quotes may be cut off behind its ports") {
    auto quoted = tcp4();
    quoted.resize(28);
    const auto error = framed(ip({.source = v4_b, .destination = v4_a, .protocol = protocol::icmp},
                                 icmp(3, 4, 0, quoted)));
    Packet packet;
    REQUIRE_FALSE(parse(error, packet));
    REQUIRE(packet.has_embedded);
    CHECK(packet.embedded == Tuple{v4_a, v4_b, protocol::tcp, 1, 2});
    quoted.resize(27);
    CHECK_FALSE(parse(framed(ip({.source = v4_b, .destination = v4_a, .protocol = protocol::icmp},
                                icmp(3, 4, 0, quoted))),
                      packet));
    CHECK_FALSE(packet.has_embedded);
}

TEST_CASE("addresses as text") {
    CHECK(to_string(*parse_cidr("100.68.0.18/18")) == "100.68.0.0/18");
    CHECK(to_string(*parse_cidr("2001:db8::1/32")) == "2001:db8::/32");
    CHECK(to_string(*parse_cidr("0.0.0.0/0")) == "0.0.0.0/0");
    for (const auto* bad : {"10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/129", "x/1", "10.0.0.0/-1",
                            "10.0.0.0/8x", "/8", "10.0.0.0/"})
        CHECK_FALSE(parse_cidr(bad));
    CHECK(to_string(*parse_mac("06:00:0a:00:00:10")) == "06:00:0a:00:00:10");
    for (const auto* bad : {"06:00:0a:00:00", "06-00-0a-00-00-10", "06:00:0a:00:00:1g", ""})
        CHECK_FALSE(parse_mac(bad));
    CHECK(to_string(link_local_of(guest_mac)) == "fe80::400:aff:fe00:10");
}

}  // namespace masu::net

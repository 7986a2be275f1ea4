// ARP, neighbor discovery, MAC addresses: what a guest may say of itself, and others of themselves.
#include <doctest/doctest.h>

#include "tests/unit/devices/net/firewall/interface.hpp"

namespace masu::net {
namespace {

using namespace fake;

struct ArpFields {
    bool reply = false;
    MacAddress sender_mac = guest_mac;
    const char* sender = "10.0.0.10";
    const char* target = "10.0.0.1";
    MacAddress ethernet_source = guest_mac;
    MacAddress ethernet_destination{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
};
Bytes arp(const ArpFields& fields) {
    Bytes bytes;
    add16(bytes, 1);
    add16(bytes, 0x0800);
    add8(bytes, 6);
    add8(bytes, 4);
    add16(bytes, fields.reply ? 2 : 1);
    add_mac(bytes, fields.sender_mac);
    add_address(bytes, address(fields.sender));
    add_mac(bytes, {});
    add_address(bytes, address(fields.target));
    return ethernet(fields.ethernet_source, fields.ethernet_destination, 0x0806, bytes);
}

struct NdpFields {
    const char* source = "2001:db8::10";
    const char* destination = "ff02::1:ff00:20";
    std::uint8_t type = 135;
    const char* target = "2001:db8::20";
    std::optional<MacAddress> link_address = std::nullopt;
    std::uint8_t hop_limit = 255;
};
Bytes ndp(const NdpFields& fields) {
    Bytes body;
    if (fields.type == 135 || fields.type == 136)
        add_address(body, address(fields.target));
    else
        body.resize(fields.type == 134 ? 8 : 0);
    if (fields.link_address) {
        add8(body, fields.type == 136 ? 2 : 1);
        add8(body, 1);
        add_mac(body, *fields.link_address);
    }
    return ip({.source = address(fields.source),
               .destination = address(fields.destination),
               .protocol = protocol::icmpv6,
               .hop_limit = fields.hop_limit},
              icmp(fields.type, 0, 0, body));
}

struct Rig : Interface {
    Rig() { set_rules(""); }
    Reason out(const Bytes& frame) { return judge_frame(Direction::Egress, frame).reason; }
    Reason in(const Bytes& frame) { return judge_frame(Direction::Ingress, frame).reason; }
    Reason ndp_out(const NdpFields& fields) { return judge(Direction::Egress, ndp(fields)).reason; }
    Reason ndp_in(const NdpFields& fields) { return judge(Direction::Ingress, ndp(fields)).reason; }
};

constexpr auto fine = Reason::NeighborTraffic;
constexpr auto spoof = Reason::NeighborSpoof;

}  // namespace

TEST_CASE_FIXTURE(Rig, "ARP: the guest speaks for itself alone") {
    CHECK(out(arp({})) == fine);
    CHECK(out(arp({.reply = true, .target = "10.0.0.20"})) == fine);
    CHECK(out(arp({.sender = "0.0.0.0", .target = "10.0.0.10"})) == fine);  // probe
    CHECK(out(arp({.reply = true, .sender = "0.0.0.0"})) == spoof);
    CHECK(out(arp({.sender = "10.0.0.20"})) == spoof);
    CHECK(out(arp({.reply = true, .sender = "10.0.0.1"})) == spoof);
    CHECK(out(arp({.sender_mac = gateway_mac})) == spoof);
    CHECK(out(arp({.ethernet_source = gateway_mac})) == Reason::SourceMac);
    // For an address that the monitor answers.
    CHECK(judge_frame(Direction::Egress, arp({.target = "169.254.169.254"})).action ==
          Action::Local);
}

TEST_CASE_FIXTURE(Rig, "ARP: nobody else speaks for the guest") {
    const ArpFields ask{.sender_mac = gateway_mac,
                        .sender = "10.0.0.1",
                        .target = "10.0.0.10",
                        .ethernet_source = gateway_mac};
    CHECK(in(arp(ask)) == fine);
    auto other = ask;
    other.target = "10.0.0.20";
    CHECK(in(arp(other)) == Reason::DestinationCheck);
    auto forged = ask;
    forged.sender = "10.0.0.10";
    CHECK(in(arp(forged)) == spoof);
    forged.sender = "169.254.169.254";
    CHECK(in(arp(forged)) == spoof);
    auto proxy = ask;
    proxy.sender_mac = {2, 2, 2, 2, 2, 2};
    CHECK(in(arp(proxy)) == spoof);
    auto elsewhere = ask;
    elsewhere.ethernet_destination = {2, 2, 2, 2, 2, 2};
    CHECK(in(arp(elsewhere)) == Reason::DestinationMac);
}

TEST_CASE_FIXTURE(Rig, "NDP out: own addresses, own MAC, this link only") {
    CHECK(ndp_out({}) == fine);
    CHECK(ndp_out({.link_address = guest_mac}) == fine);
    CHECK(ndp_out({.link_address = gateway_mac}) == spoof);
    CHECK(ndp_out({.source = "2001:db8::20"}) == spoof);
    CHECK(ndp_out({.hop_limit = 64}) == Reason::MalformedFrame);
    // To a neighbor of the same /64, but not to the world.
    CHECK(ndp_out({.destination = "2001:db8::20"}) == fine);
    CHECK(ndp_out({.destination = "2001:db8:c::5"}) == Reason::Multicast);
    // Duplicate address detection
    CHECK(ndp_out({.source = "::", .target = "2001:db8::10"}) == fine);
    CHECK(ndp_out({.source = "::", .target = "2001:db8::20"}) == spoof);
    CHECK(ndp_out({.destination = "ff02::1", .type = 136, .target = "2001:db8::10"}) == fine);
    CHECK(ndp_out({.destination = "ff02::1", .type = 136, .target = "2001:db8::20"}) == spoof);
    CHECK(ndp_out({.source = "::", .destination = "ff02::2", .type = 133}) == fine);
    CHECK(ndp_out({.destination = "ff02::1", .type = 134}) == spoof);
    CHECK(judge(Direction::Egress, ndp({.target = "fd00:ec2::254"})).action == Action::Local);
}

TEST_CASE_FIXTURE(Rig,
                  "NDP out: two link-local addresses are learned, no more, and none of others") {
    CHECK(ndp_out({.source = "fe80::400:aff:fe00:10"}) == fine);     // of its MAC
    CHECK(ndp_out({.source = "::", .target = "fe80::1"}) == spoof);  // the monitor's
    config.neighbors = {address("fe80::9")};
    firewall->replace_config(config);
    CHECK(ndp_out({.source = "::", .target = "fe80::9"}) == spoof);
    CHECK(ndp_out({.source = "::", .target = "fe80::abc"}) == fine);
    CHECK(ndp_out({.source = "fe80::abc"}) == fine);
    CHECK(ndp_out({.source = "::", .target = "fe80::abd"}) == fine);
    CHECK(ndp_out({.source = "::", .target = "fe80::abe"}) == spoof);
    CHECK(ndp_in({.source = "fe80::77", .target = "fe80::abd"}) == fine);
}

TEST_CASE_FIXTURE(Rig, "NDP in: about the guest's addresses, and in nobody else's name") {
    CHECK(ndp_in({.source = "fe80::77", .target = "2001:db8::10"}) == fine);
    CHECK(ndp_in({.source = "fe80::77", .target = "2001:db8::20"}) == Reason::DestinationCheck);
    CHECK(ndp_in({.source = "fe80::77", .destination = "2001:db8::10", .type = 136}) == fine);
    CHECK(ndp_in({.source = "fe80::77",
                  .destination = "ff02::1",
                  .type = 136,
                  .target = "2001:db8::10"}) == spoof);
    CHECK(ndp_in({.source = "fe80::77", .destination = "ff02::1", .type = 134}) == fine);
    CHECK(ndp_in({.source = "2001:db8::77", .destination = "ff02::1", .type = 134}) == spoof);
    CHECK(ndp_in({.source = "fe80::77", .destination = "ff02::2", .type = 133}) == spoof);
    CHECK(ndp_in({.source = "fe80::77", .destination = "2001:db8::10", .type = 137}) ==
          Reason::MalformedFrame);  // cut short
    config.router_discovery_on_wire = false;
    firewall->replace_config(config);
    CHECK(ndp_in({.source = "fe80::77", .destination = "ff02::1", .type = 134}) == spoof);
    CHECK(judge(Direction::Egress, ndp({.source = "::", .destination = "ff02::2", .type = 133}))
              .action == Action::Local);
}

TEST_CASE_FIXTURE(Rig,
                  "the guest's frames carry its own MAC, and frames for others do not reach it") {
    set_rules("in -1 any; E*");
    const auto packet = PacketText("tcp I:5>C:443 S", hosts()).read();
    CHECK(out(ethernet(gateway_mac, gateway_mac, 0x0800, packet)) == Reason::SourceMac);
    const auto answer = PacketText("tcp C:443>I:5 SA", hosts()).read();
    CHECK(in(ethernet(gateway_mac, {2, 2, 2, 2, 2, 2}, 0x0800, answer)) == Reason::DestinationMac);
    CHECK(in(ethernet(gateway_mac, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 0x0800, answer)) ==
          Reason::DestinationMac);
}

TEST_CASE_FIXTURE(Rig, "multicast listener reports go out, queries come in") {
    const auto mld = [](std::uint8_t type, const char* source, const char* destination,
                        std::uint8_t hops) {
        return ip({.source = address(source),
                   .destination = address(destination),
                   .protocol = protocol::icmpv6,
                   .hop_limit = hops},
                  icmp(type, 0));
    };
    CHECK(judge(Direction::Egress, mld(143, "::", "ff02::16", 1)).reason == fine);
    CHECK(judge(Direction::Egress, mld(143, "::", "ff02::16", 64)).reason == Reason::Multicast);
    CHECK(judge(Direction::Egress, mld(143, "2001:db8::10", "2001:db8:c::5", 1)).reason ==
          Reason::Multicast);
    CHECK(judge(Direction::Egress, mld(130, "fe80::400:aff:fe00:10", "ff02::1", 1)).reason ==
          spoof);
    CHECK(judge(Direction::Ingress, mld(130, "fe80::77", "ff02::1", 1)).reason == fine);
}

}  // namespace masu::net

// The monitor's answers on an interface: DHCP, ARP, discovery, ping, and whose frame is whose.
#include "devices/net/services/services.hpp"

#include <doctest/doctest.h>

#include <map>

#include "devices/net/services/dhcp.hpp"
#include "tests/unit/devices/net/guest_tcp.hpp"

namespace masu::net {
namespace {

using namespace fake;

constexpr MacAddress guest_mac{6, 0, 0, 0, 0, 1};
constexpr MacAddress everyone{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
const Address gateway4 = Address::v4(0xac1f0001);
const Address gateway6 = Address::v6(0xfe80'0000'0000'0000, 1);
const Address guest6 = Address::v6(0xfd00'0000'0000'0000, 0x10);

ServiceConfig sample() {
    ServiceConfig config{.guest_mac = guest_mac, .mtu = 1400, .hostname = "web"};
    config.ipv4 = Ipv4Network{.address = guest4,
                              .prefix_length = 20,
                              .gateway = gateway4,
                              .local_gateway = true,
                              .dns = {Address::v4(0xac1f0002)}};
    config.ipv6 = Ipv6Network{.address = guest6,
                              .prefix_length = 64,
                              .gateway = gateway6,
                              .local_gateway = true,
                              .dns = {Address::v6(0xfd00'0ec2'0000'0000, 0x253)}};
    config.metadata = {metadata4, Address::v6(0xfd00'0ec2'0000'0000, 0x254)};
    return config;
}

class Echo final : public TcpApplication {
  public:
    Step serve(const Address& /*peer*/, const Address& /*local*/, std::string_view received,
               Nanoseconds /*now*/) override {
        return {.consumed = received.size(), .response = std::string(received)};
    }
};

struct Rig {
    explicit Rig(ServiceConfig config = sample()) : services(std::move(config), &echo, 1) {}
    std::vector<Bytes> exchange(const Bytes& frame) {
        if (services.wants(frame))
            services.receive(frame, now);
        std::vector<Bytes> answers;
        for (;;) {
            const auto answer = services.take_frame(now);
            if (answer.empty())
                return answers;
            answers.emplace_back(answer.begin(), answer.end());
        }
    }
    Echo echo;
    Services services;
    Nanoseconds now = 1'000'000'000;
};

struct DhcpOptions : std::map<int, Bytes> {};

Bytes dhcp_request(const DhcpOptions& options, const Address& client = Address::v4(0),
                   const MacAddress& mac = guest_mac) {
    Bytes message;
    PacketWriter writer(message);
    writer.u8(1).u8(1).u8(6).u8(0).u32(0x12345678).u32(0).address(client).zeros(12).mac(mac);
    writer.zeros(10 + 64 + 128).u32(0x63825363);
    for (const auto& [code, value] : options)
        writer.u8(static_cast<unsigned>(code)).u8(static_cast<unsigned>(value.size())).bytes(value);
    writer.u8(255);
    Bytes frame;
    write_udp(frame,
              {.from_mac = mac, .to_mac = everyone, .from = client, .to = Address::v4(0xffffffff)},
              68, 67, message);
    return frame;
}

Bytes octets(std::initializer_list<int> values) {
    Bytes bytes;
    for (const int value : values)
        bytes.push_back(static_cast<std::byte>(value));
    return bytes;
}

struct DhcpReply {
    Address offered;
    DhcpOptions options;
};
DhcpReply read_dhcp(const Bytes& frame) {
    const auto packet = read_packet(frame);
    REQUIRE(packet);
    CHECK(packet->tuple.source_port == 67);
    CHECK(packet->tuple.destination_port == 68);
    const auto message = std::span(frame).subspan(packet->payload_offset);
    REQUIRE(message.size() >= 300);
    CHECK(get32(&message[4]) == 0x12345678);
    DhcpReply reply{.offered = get_address4(&message[16]), .options = {}};
    for (std::size_t at = 240; get8(&message[at]) != 255;) {
        const std::size_t size = get8(&message[at + 1]);
        const auto value = message.subspan(at + 2, size);
        reply.options[get8(&message[at])] = Bytes(value.begin(), value.end());
        at += 2 + size;
    }
    return reply;
}

Bytes arp_request(const Address& target) {
    Bytes frame;
    PacketWriter(frame)
        .mac(everyone)
        .mac(guest_mac)
        .u16(ethertype_arp)
        .u16(1)
        .u16(0x0800)
        .u8(6)
        .u8(4)
        .u16(1)
        .mac(guest_mac)
        .address(guest4)
        .zeros(6)
        .address(target);
    return frame;
}

Bytes icmpv6(const Address& from, const Address& to, const Bytes& message) {
    Bytes frame;
    write_packet(frame,
                 {.from_mac = guest_mac,
                  .to_mac = {0x33, 0x33, 0, 0, 0, 1},
                  .from = from,
                  .to = to,
                  .hop_limit = 255},
                 protocol_icmpv6, message, 2);
    return frame;
}

}  // namespace

TEST_CASE("DHCP: discover, request, renewal, inform") {
    Rig rig;
    auto answers = rig.exchange(dhcp_request({{{53, octets({1})}}}));
    REQUIRE(answers.size() == 1);
    auto reply = read_dhcp(answers[0]);
    CHECK(reply.offered == guest4);
    CHECK(reply.options[53] == octets({2}));
    CHECK(reply.options[1] == octets({255, 255, 240, 0}));
    CHECK(reply.options[3] == octets({172, 31, 0, 1}));
    CHECK(reply.options[6] == octets({172, 31, 0, 2}));
    CHECK(reply.options[12] == octets({'w', 'e', 'b'}));
    CHECK(reply.options[26] == octets({1400 >> 8, 1400 & 255}));
    CHECK(reply.options[121] == octets({0, 172, 31, 0, 1}));
    CHECK(reply.options[54] == octets({172, 31, 0, 1}));

    const auto type_of = [&](const Bytes& frame) {
        const auto all = rig.exchange(frame);
        return all.empty() ? 0 : std::to_integer<int>(read_dhcp(all[0]).options[53][0]);
    };
    const auto request = octets({3});
    CHECK(type_of(dhcp_request({{{50, octets({172, 31, 0, 10})}, {53, request}}})) == 5);
    CHECK(type_of(dhcp_request({{{50, octets({172, 31, 0, 11})}, {53, request}}})) == 6);
    CHECK(type_of(dhcp_request({{{53, request}}}, guest4)) == 5);
    CHECK(type_of(dhcp_request({{{53, octets({8})}}}, guest4)) == 5);
    // For another server, from another client, and messages that want no answer.
    CHECK(type_of(dhcp_request({{{53, request}, {54, octets({9, 9, 9, 9})}}}, guest4)) == 0);
    CHECK(type_of(dhcp_request({{{53, octets({1})}}}, Address::v4(0), {6, 0, 0, 0, 0, 9})) == 0);
    CHECK(type_of(dhcp_request({{{53, octets({7})}}}, guest4)) == 0);
    CHECK(type_of(dhcp_request({})) == 0);
}

TEST_CASE("without a gateway, DHCP says that the metadata service is on the link") {
    auto config = sample();
    config.ipv4->gateway.reset();
    config.ipv4->local_gateway = false;
    Rig rig(config);
    const auto answers = rig.exchange(dhcp_request({{{53, octets({1})}}}));
    REQUIRE(answers.size() == 1);
    const auto reply = read_dhcp(answers[0]);
    CHECK_FALSE(reply.options.contains(3));
    CHECK(reply.options.at(121) == octets({32, 169, 254, 169, 254, 0, 0, 0, 0}));
    config.metadata.clear();
    Rig silent(config);
    CHECK_FALSE(
        read_dhcp(silent.exchange(dhcp_request({{{53, octets({1})}}}))[0]).options.contains(121));
}

TEST_CASE("DHCP messages cut off anywhere get no answer and do no harm") {
    const auto whole = dhcp_request({{{50, octets({172, 31, 0, 10})}, {53, octets({3})}}});
    const auto message = std::span(whole).subspan(42);
    const auto config = sample();
    for (std::size_t size = 0; size < message.size(); ++size) {
        const Bytes part(message.begin(), message.begin() + static_cast<std::ptrdiff_t>(size));
        Bytes answer;
        const bool answered = answer_dhcp(config, part, answer);
        CHECK(answered == (size + 1 >= message.size()));
    }
}

TEST_CASE("ARP for what the monitor owns, and for nothing else") {
    Rig rig;
    for (const auto& address : {gateway4, metadata4}) {
        const auto answers = rig.exchange(arp_request(address));
        REQUIRE(answers.size() == 1);
        const auto packet = read_packet(answers[0]);
        REQUIRE(packet);
        CHECK(packet->arp.is_reply);
        CHECK(packet->arp.sender == address);
        CHECK(packet->arp.sender_mac == service_mac);
        CHECK(packet->arp.target == guest4);
    }
    CHECK(rig.exchange(arp_request(Address::v4(0xac1f0003))).empty());
    CHECK_FALSE(rig.services.wants(arp_request(Address::v4(0xac1f0003))));
    auto config = sample();
    config.ipv4->local_gateway = false;
    CHECK_FALSE(Rig(config).services.wants(arp_request(gateway4)));
}

TEST_CASE("router and neighbour solicitations are answered") {
    Rig rig;
    const auto all_routers = Address::v6(0xff02'0000'0000'0000, 2);
    auto answers =
        rig.exchange(icmpv6(Address::v6(0, 0), all_routers, octets({133, 0, 0, 0, 0, 0, 0, 0})));
    REQUIRE(answers.size() == 1);
    auto packet = read_packet(answers[0]);
    REQUIRE(packet);
    CHECK(packet->tuple.icmp_type() == 134);
    CHECK(packet->tuple.source == gateway6);
    CHECK(packet->hop_limit == 255);
    CHECK(get8(&answers[0][packet->transport_offset + 5U]) == 0xc0);   // managed, other
    CHECK(get16(&answers[0][packet->transport_offset + 6U]) == 1800);  // router lifetime
    auto config = sample();
    config.ipv6->shared_link = true;
    Rig shared(config);
    answers =
        shared.exchange(icmpv6(Address::v6(0, 0), all_routers, octets({133, 0, 0, 0, 0, 0, 0, 0})));
    REQUIRE(answers.size() == 1);
    CHECK(get16(&answers[0][packet->transport_offset + 6U]) == 0);

    Bytes solicitation;
    PacketWriter(solicitation)
        .u8(135)
        .u8(0)
        .u16(0)
        .u32(0)
        .address(gateway6)
        .u8(1)
        .u8(1)
        .mac(guest_mac);
    answers = rig.exchange(icmpv6(guest6, gateway6, solicitation));
    REQUIRE(answers.size() == 1);
    packet = read_packet(answers[0]);
    REQUIRE(packet);
    CHECK(packet->tuple.icmp_type() == 136);
    CHECK(packet->ndp.target == gateway6);
    CHECK(packet->tuple.destination == guest6);
}

TEST_CASE("the gateway answers ping") {
    Rig rig;
    Bytes frame;
    write_packet(frame,
                 {.from_mac = guest_mac, .to_mac = service_mac, .from = guest4, .to = gateway4},
                 protocol_icmp, octets({8, 0, 0, 0, 0, 7, 0, 1, 'a', 'b', 'c'}), 2);
    const auto answers = rig.exchange(frame);
    REQUIRE(answers.size() == 1);
    const auto& answer = answers[0];
    CHECK(get8(&answer[34]) == 0);
    CHECK(get_address4(&answer[26]) == gateway4);
    CHECK(std::ranges::equal(std::span(answer).subspan(38), std::span(frame).subspan(38)));
    CHECK(checksum_finish(checksum_add(0, std::span(answer).subspan(34))) == 0);
}

TEST_CASE("TCP port 80 of the metadata address is served, others are not") {
    Rig rig;
    auto answers = rig.exchange(tcp_bytes({.sequence = 9, .flags = tcp_flag::syn}, 5000));
    REQUIRE(answers.size() == 1);
    CHECK(read_tcp(answers[0]).flags == (tcp_flag::syn | tcp_flag::ack));
    // The gateway's port 80 is nobody's; the frame must not get out either.
    const auto to_gateway =
        tcp_bytes({.sequence = 9, .flags = tcp_flag::syn}, 5001, guest4, gateway4);
    CHECK(rig.services.wants(to_gateway));
    CHECK(rig.exchange(to_gateway).empty());
    rig.services.reset();
    CHECK_FALSE(rig.services.next_deadline());
}

TEST_CASE("nobody outside may speak for the services") {
    Rig rig;
    const auto outside = [&](const Address& from, std::uint16_t port) {
        Bytes frame;
        write_udp(frame,
                  {.from_mac = {2, 0, 0, 0, 0, 7}, .to_mac = guest_mac, .from = from, .to = guest4},
                  port, 68, octets({1, 2, 3}));
        return rig.services.impersonates(frame);
    };
    CHECK(outside(metadata4, 1000));
    CHECK(outside(gateway4, 1000));
    CHECK(outside(Address::v4(0x08080808), 67));  // a DHCP server of somebody else
    CHECK_FALSE(outside(Address::v4(0x08080808), 53));
}

TEST_CASE("frames of any other kind are left alone, and queues are bounded") {
    Rig rig;
    CHECK_FALSE(rig.services.wants({}));
    CHECK_FALSE(rig.services.wants(Bytes(14)));
    Bytes frame;
    write_udp(frame, {.from_mac = guest_mac, .from = guest4, .to = Address::v4(0x08080808)}, 1, 2,
              {});
    CHECK_FALSE(rig.services.wants(frame));
    for (int i = 0; i < 1000; ++i)
        rig.services.receive(arp_request(gateway4), rig.now);
    std::size_t count = 0;
    while (!rig.services.take_frame(rig.now).empty())
        ++count;
    CHECK(count == Services::max_queued);
}

}  // namespace masu::net

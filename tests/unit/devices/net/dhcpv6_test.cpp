// DHCPv6 as its clients speak it: what systemd-networkd, dhclient, dhcpcd and NetworkManager send,
// byte by byte, and what none of them should.
#include "devices/net/services/dhcpv6.hpp"

#include <doctest/doctest.h>

#include <string>
#include <string_view>

#include "devices/net/firewall/wire.hpp"
#include "devices/net/services/read_packet.hpp"
#include "devices/net/services/services.hpp"

namespace masu::net {
namespace {

constexpr MacAddress guest_mac{6, 0, 0, 0, 0, 1};
const Address guest6 = Address::v6(0xfd00'0001'0000'0000, 0x0400'00ff'fe00'0001);
const Address from = Address::v6(0xfe80'0000'0000'0000, 0x1234);  // stable privacy: not of the MAC
const Address gateway6 = Address::v6(0xfe80'0000'0000'0000, 1);

ServiceConfig sample() {
    ServiceConfig config{.guest_mac = guest_mac};
    config.ipv6 = Ipv6Network{.address = guest6,
                              .prefix_length = 64,
                              .gateway = gateway6,
                              .local_gateway = true,
                              .shared_link = true,
                              .dns = {Address::v6(0xfd00'0ec2'0000'0000, 0x253)}};
    return config;
}

Bytes from_hex(std::string_view text) {
    Bytes bytes;
    std::string digits;
    for (const char c : text)
        if (c != ' ')
            digits += c;
    for (std::size_t i = 0; i + 1 < digits.size(); i += 2)
        bytes.push_back(static_cast<std::byte>(std::stoi(digits.substr(i, 2), nullptr, 16)));
    return bytes;
}

std::string to_hex(std::span<const std::byte> bytes) {
    std::string text;
    for (const auto byte : bytes)
        text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
    return text;
}

// Without the blanks that make the tables readable.
std::string packed(std::string_view text) {
    return to_hex(from_hex(text));
}

// The message that answers `message`; empty when nothing does.
std::string answer(std::string_view message, const ServiceConfig& config = sample()) {
    Bytes out;
    if (!answer_dhcpv6(config, from, from_hex(message), out))
        return {};
    const auto packet = read_packet(out);
    REQUIRE(packet);
    CHECK(packet->tuple.source_port == 547);
    CHECK(packet->tuple.destination_port == 546);
    CHECK(packet->tuple.destination == from);
    CHECK(packet->tuple.source.is_link_local_v6());
    CHECK(packet->destination_mac == guest_mac);
    return to_hex(std::span(out).subspan(packet->payload_offset));
}

// Options: identifiers, the lease, another address of the link, one from elsewhere.
#define CLIENT "0001 000e 0002 0000ab11 0102030405060708 "
#define SERVER "0002 000a 0003 0001 060123456701 "
#define LEASE "0005 0018 fd000001000000000400 00fffe000001 00000e10 00000e10 "
#define HAD "0005 0018 fd000001000000000400 00fffe000001 00000708 00000e10 "
#define OTHER "0005 0018 fd00000100000000aaaa aaaaaaaaaaaa 00000708 00000e10 "
#define OTHER_ENDS "0005 0018 fd00000100000000aaaa aaaaaaaaaaaa 00000000 00000000 "
#define ELSEWHERE "0005 0018 fd000002000000000400 00fffe000001 00000708 00000e10 "
#define DNS "0017 0010 fd000ec2000000000000 000000000253 "
#define ELAPSED "0008 0002 0000 "
#define TIMES "00000708 00000b40 "  // T1 and T2 of the lease

struct Case {
    const char* name;
    const char* message;
    const char* reply;  // "" for none
};

}  // namespace

TEST_CASE("DHCPv6: every message that is answered") {
    const Case cases[] = {
        {"systemd-networkd solicits, with rapid commit and a prefix wanted",
         "01 a1b2c3 000e 0000 0003 000c 11223344 00000000 00000000 "
         "0019 000c 11223344 00000000 00000000 0006 0008 0017 0018 0027 001f " CLIENT ELAPSED,
         "07 a1b2c3 " CLIENT SERVER "000e 0000 0003 0028 11223344 " TIMES LEASE
         "0019 0012 11223344 00000000 00000000 000d 0002 0006 " DNS},
        {"dhclient -6 solicits",
         "01 00beef " CLIENT "0006 0006 0017 0018 001f " ELAPSED
         "0003 000c 00000001 00000e10 00001518",
         "02 00beef " CLIENT SERVER "0007 0001 ff 0003 0028 00000001 " TIMES LEASE DNS},
        {"and requests what it was offered",
         "03 00bef0 " CLIENT SERVER "0006 0006 0017 0018 001f " ELAPSED
         "0003 0028 00000001 00000e10 00001518 " LEASE,
         "07 00bef0 " CLIENT SERVER "0003 0028 00000001 " TIMES LEASE DNS},
        {"a request of another address of the link gets the lease",
         "03 00bef0 " CLIENT SERVER "0003 0028 00000001 00000000 00000000 " OTHER,
         "07 00bef0 " CLIENT SERVER "0003 0028 00000001 " TIMES LEASE DNS},
        {"a request of an address from elsewhere is not on link",
         "03 00bef0 " CLIENT SERVER "0003 0028 00000001 00000000 00000000 " ELSEWHERE,
         "07 00bef0 " CLIENT SERVER "0003 0012 00000001 00000000 00000000 000d 0002 0004 " DNS},
        {"the second association and a temporary one get nothing",
         "03 000001 " CLIENT SERVER "0003 000c 00000001 00000000 00000000 "
         "0003 000c 00000002 00000000 00000000 0004 0004 00000003",
         "07 000001 " CLIENT SERVER "0003 0028 00000001 " TIMES LEASE
         "0003 0012 00000002 00000000 00000000 000d 0002 0002 0004 000a 00000003 000d 0002 "
         "0002 " DNS},
        {"NetworkManager renews",
         "05 000002 " CLIENT SERVER "0003 0028 00000001 00000000 00000000 " HAD ELAPSED
         "0006 0004 0017 0018",
         "07 000002 " CLIENT SERVER "0003 0028 00000001 " TIMES LEASE DNS},
        {"a clone renews: its own address, and the other ends",
         "05 000002 " CLIENT SERVER "0003 0028 00000001 00000000 00000000 " OTHER,
         "07 000002 " CLIENT SERVER "0003 0044 00000001 " TIMES LEASE OTHER_ENDS DNS},
        {"dhcpcd rebinds",
         "06 000003 " CLIENT "0003 0028 00000001 00000000 00000000 " HAD ELAPSED
         "0006 0004 0017 0052",
         "07 000003 " CLIENT SERVER "0003 0028 00000001 " TIMES LEASE DNS},
        {"a link that came back confirms the lease",
         "04 000004 " CLIENT "0003 0028 00000001 00000000 00000000 " HAD ELAPSED,
         "07 000004 " CLIENT SERVER "000d 0002 0000 "},
        {"but no other address",
         "04 000004 " CLIENT "0003 0028 00000001 00000000 00000000 " OTHER ELAPSED,
         "07 000004 " CLIENT SERVER "000d 0002 0004 "},
        {"release", "08 000005 " CLIENT SERVER "0003 0028 00000001 00000000 00000000 " HAD,
         "07 000005 " CLIENT SERVER "000d 0002 0000 "},
        {"release of what it has not",
         "08 000005 " CLIENT SERVER "0003 0028 00000001 00000000 00000000 " OTHER,
         "07 000005 " CLIENT SERVER
         "000d 0002 0000 0003 0012 00000001 00000000 00000000 000d 0002 0003"},
        {"decline", "09 000006 " CLIENT SERVER "0003 0028 00000001 00000000 00000000 " HAD,
         "07 000006 " CLIENT SERVER "000d 0002 0000 "},
        {"an information request, with identifiers and without",
         "0b 000007 " CLIENT "0006 0002 0017", "07 000007 " CLIENT SERVER DNS},
        {"", "0b 000008 " ELAPSED, "07 000008 " SERVER DNS},
        {"servers are told to whom asks for them", "0b 000009 0006 0002 0018", "07 000009 " SERVER},
    };
    for (const auto& [name, message, reply] : cases) {
        CAPTURE(name);
        CHECK(answer(message) == packed(reply));
    }
}

TEST_CASE("DHCPv6: what is discarded (RFC 8415, 16)") {
    const std::string association = "0003 000c 00000001 00000000 00000000 ";
    const std::string other_server = "0002 000a 0003 0001 020000000009 ";
    const Case cases[] = {
        {"nothing", "", ""},
        {"no more than a type", "01", ""},
        {"solicit without client", "01 000001 0003 000c 00000001 00000000 00000000", ""},
        {"solicit that names a server", "01 000001 " CLIENT SERVER, ""},
        {"request without server", "03 000001 " CLIENT, ""},
        {"confirm that names a server", "04 000001 " CLIENT SERVER HAD, ""},
        {"confirm without addresses", "04 000001 " CLIENT "0003 000c 00000001 00000000 00000000",
         ""},
        {"renew without server", "05 000001 " CLIENT, ""},
        {"rebind that names a server", "06 000001 " CLIENT SERVER, ""},
        {"release without client", "08 000001 " SERVER, ""},
        {"two clients", "01 000001 " CLIENT CLIENT, ""},
        {"a client identifier that is too short", "01 000001 0001 0002 0003", ""},
        {"an information request with an association",
         "0b 000001 0003 000c 00000001 00000000 00000000", ""},
        {"an advertisement", "02 000001 " CLIENT SERVER, ""},
        {"a reply", "07 000001 " CLIENT SERVER, ""},
        {"a reconfiguration", "0a 000001 " CLIENT SERVER, ""},
        {"a relay", "0c 00 00000000000000000000000000000000 00000000000000000000000000000000", ""},
        {"an option of odd length in a list", "01 000001 " CLIENT "0006 0003 001700", ""},
        {"an association that is cut off", "01 000001 " CLIENT "0003 0008 00000001 00000000", ""},
        {"an address that is cut off",
         "01 000001 " CLIENT "0003 0014 00000001 00000000 00000000 0005 0004 fd000001", ""},
    };
    for (const auto& [name, message, reply] : cases) {
        CAPTURE(name);
        CHECK(answer(message) == reply);
    }
    for (const auto* type : {"03", "05", "08", "09"})
        CHECK(answer(type + (" 000001 " CLIENT + other_server) + association).empty());
    const auto long_client = [](int size) {
        std::string text = fmt::format("0001 {:04x}", size);
        for (int i = 0; i < size; ++i)
            text += "01";
        return text;
    };
    CHECK_FALSE(answer("01 000001 " + long_client(130)).empty());
    CHECK(answer("01 000001 " + long_client(131)).empty());
}

TEST_CASE("DHCPv6: associations and addresses are bounded, and the largest answer fits the MTU") {
    const auto message = [](int associations, int addresses) {
        std::string text = "05 000001 0001 0082 ";
        for (int i = 0; i < 130; ++i)
            text += "01";
        text += SERVER;
        for (int i = 0; i < associations; ++i) {
            const int here = i == 0 ? addresses : 0;
            text += fmt::format("0003 {:04x} {:08x} 00000000 00000000", 12 + here * 28, i);
            for (int j = 0; j < here; ++j)
                text += OTHER;
        }
        return text;
    };
    const auto largest = answer(message(4, 8));
    CHECK_FALSE(largest.empty());
    CHECK(largest.size() / 2 + 48 <= 1280);
    CHECK(answer(message(5, 1)).empty());
    CHECK(answer(message(1, 9)).empty());
}

TEST_CASE("DHCPv6 messages cut off anywhere are not answered as if they were whole") {
    const auto whole =
        from_hex("03 00bef0 " CLIENT SERVER "0003 0028 00000001 00000e10 00001518 " LEASE);
    for (std::size_t size = 0; size < whole.size(); ++size) {
        Bytes out;
        const bool answered = answer_dhcpv6(sample(), from, std::span(whole).first(size), out);
        // Whole again without the last option: a request for nothing.
        CHECK(answered == (size == 4 + 18 + 14));
    }
}

TEST_CASE("which DHCPv6 frames are the services', and who may not send them") {
    const auto solicit = from_hex("01 00beef " CLIENT "0003 000c 00000001 00000000 00000000");
    struct Sent {
        const char* name;
        Address source = from;
        Address destination = dhcpv6_servers;
        std::uint16_t source_port = 546;
        std::uint16_t destination_port = 547;
        MacAddress mac = guest_mac;
        bool wanted = false;
    };
    const Sent cases[] = {
        {.name = "as a client does", .wanted = true},
        {.name = "from a global address", .source = guest6},
        {.name = "to one server", .destination = Address::v6(0xfe80'0000'0000'0000, 9)},
        {.name = "from another port", .source_port = 1000},
        {.name = "to another port", .destination_port = 546},
        {.name = "from another MAC", .mac = {6, 0, 0, 0, 0, 2}},
    };
    for (const auto& sent : cases) {
        CAPTURE(sent.name);
        Bytes frame;
        write_udp(frame,
                  {.from_mac = sent.mac,
                   .to_mac = {0x33, 0x33, 0, 1, 0, 2},
                   .from = sent.source,
                   .to = sent.destination},
                  sent.source_port, sent.destination_port, solicit);
        Services services(sample(), nullptr, 1);
        CHECK(services.wants(frame) == sent.wanted);
        if (sent.wanted) {
            services.receive(frame, 0);
            CHECK_FALSE(services.take_frame(0).empty());
        }
        Services without(ServiceConfig{.guest_mac = guest_mac}, nullptr, 1);
        CHECK_FALSE(without.wants(frame));
    }
    Bytes reply;
    write_udp(reply,
              {.from_mac = {2, 0, 0, 0, 0, 7},
               .to_mac = guest_mac,
               .from = Address::v6(0xfe80'0000'0000'0000, 9),
               .to = from},
              547, 546, from_hex("07 00beef " CLIENT SERVER));
    CHECK(Services(sample(), nullptr, 1).impersonates(reply));
    CHECK_FALSE(Services(ServiceConfig{.guest_mac = guest_mac}, nullptr, 1).impersonates(reply));
}

TEST_CASE("an address that the firewall would not admit is said to be taken") {
    const auto probe = [](const Address& source, const Address& target) {
        Bytes message;
        PacketWriter(message).u8(135).u8(0).u16(0).u32(0).address(target);
        Bytes frame;
        write_packet(frame,
                     {.from_mac = guest_mac,
                      .to_mac = {0x33, 0x33, 0xff, 0, 0, 1},
                      .from = source,
                      .to = Address::v6(0xff02'0000'0000'0000, 0x1'ff00'0001),
                      .hop_limit = 255},
                     protocol_icmpv6, message, 2);
        return frame;
    };
    const auto none = Address::v6(0, 0);
    const auto other = Address::v6(0xfd00'0001'0000'0000, 0xaaaa);
    auto config = sample();
    Services services(config, nullptr, 1);
    CHECK_FALSE(services.wants(probe(none, guest6)));
    CHECK_FALSE(services.wants(probe(none, from)));     // link-local: the firewall learns it
    CHECK_FALSE(services.wants(probe(guest6, other)));  // looks for a neighbour
    REQUIRE(services.wants(probe(none, other)));
    services.receive(probe(none, other), 0);
    const auto answer = services.take_frame(0);
    REQUIRE_FALSE(answer.empty());
    const auto packet = read_packet(answer);
    REQUIRE(packet);
    CHECK(packet->tuple.icmp_type() == 136);
    CHECK(packet->ndp.target == other);
    CHECK(packet->tuple.destination == Address::v6(0xff02'0000'0000'0000, 1));
    // A prefix of its own: any address of it will do.
    config.ipv6->shared_link = false;
    CHECK_FALSE(Services(config, nullptr, 1).wants(probe(none, other)));
}

#undef CLIENT
#undef SERVER
#undef LEASE
#undef HAD
#undef OTHER
#undef OTHER_ENDS
#undef ELSEWHERE
#undef DNS
#undef ELAPSED
#undef TIMES

}  // namespace masu::net

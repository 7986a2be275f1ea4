// Egress by DNS name: queries, answers, and what they admit.
#include <doctest/doctest.h>

#include "devices/net/firewall/dns_message.hpp"
#include "devices/net/firewall/name_table.hpp"
#include "tests/unit/devices/net/firewall/interface.hpp"

namespace masu::net {
namespace {

using namespace fake;

Bytes dns_name(std::string_view name) {
    Bytes bytes;
    for (const auto& label : split(name, '.')) {
        add8(bytes, static_cast<unsigned>(label.size()));
        for (const char c : label)
            add8(bytes, static_cast<unsigned char>(c));
    }
    add8(bytes, 0);
    return bytes;
}
Bytes question(std::string_view name, unsigned type) {
    auto bytes = dns_name(name);
    add16(bytes, type);
    add16(bytes, 1);
    return bytes;
}
Bytes message(unsigned id, unsigned flags, const Bytes& asked,
              const std::vector<Bytes>& records = {}) {
    Bytes bytes;
    for (const auto value : {id, flags, 1U, static_cast<unsigned>(records.size()), 0U, 0U})
        add16(bytes, value);
    add(bytes, asked);
    for (const auto& record : records)
        add(bytes, record);
    return bytes;
}
Bytes record(const Bytes& owner, unsigned type, std::uint32_t ttl, const Bytes& data) {
    Bytes bytes = owner;
    add16(bytes, type);
    add16(bytes, 1);
    add32(bytes, ttl);
    add16(bytes, static_cast<unsigned>(data.size()));
    add(bytes, data);
    return bytes;
}
Bytes address_data(std::string_view text) {
    Bytes bytes;
    add_address(bytes, address(text));
    return bytes;
}
const Bytes to_question{std::byte{0xc0}, std::byte{12}};  // compression: the name asked for

constexpr unsigned query_flags = 0x0100;
constexpr unsigned answer_flags = 0x8180;

struct Rig : Interface {
    Rig() { set_rules("out tcp 443-443 name:api.example.com; out tcp 443-443 name:*.example.org"); }
    Verdict ask(std::string_view name, unsigned id = 7, unsigned type = 1,
                std::uint16_t port = 5000) {
        return send(message(id, query_flags, question(name, type)), port);
    }
    Verdict send(const Bytes& dns, std::uint16_t port = 5000) {
        return judge(Direction::Egress, ip({.source = address("10.0.0.10"),
                                            .destination = address("10.0.0.2"),
                                            .protocol = protocol::udp},
                                           udp(port, 53, dns)));
    }
    Verdict reply(const Bytes& dns, std::uint16_t port = 5000, const char* from = "10.0.0.2") {
        return judge(Direction::Ingress, ip({.source = address(from),
                                             .destination = address("10.0.0.10"),
                                             .protocol = protocol::udp},
                                            udp(53, port, dns)));
    }
    void resolve(std::string_view name, std::string_view to, std::uint32_t ttl = 300) {
        REQUIRE(ask(name).passes());
        REQUIRE(reply(message(7, answer_flags, question(name, 1),
                              {record(to_question, 1, ttl, address_data(to))}))
                    .passes());
    }
};

}  // namespace

TEST_CASE_FIXTURE(Rig, "an answer to the guest's query admits the address for its TTL") {
    CHECK_FALSE(passes("out tcp I:9>C:443 S"));
    resolve("api.example.com", "203.0.113.5");
    CHECK(passes("out tcp I:9>C:443 S"));
    CHECK_FALSE(passes("out tcp I:9>C:80 S"));
    CHECK_FALSE(passes("out tcp I:9>D:443 S"));
    now += 301 * second;
    CHECK(passes("out tcp I:9>C:443 A") == false);
    CHECK_FALSE(passes("out tcp I:10>C:443 S"));
}

TEST_CASE_FIXTURE(Rig, "a connection outlives the admission") {
    resolve("api.example.com", "203.0.113.5", 60);
    CHECK(passes("out tcp I:9>C:443 S"));
    CHECK(passes("in tcp C:443>I:9 SA"));
    CHECK(passes("out tcp I:9>C:443 A"));
    now += 3600 * second;
    CHECK(passes("in tcp C:443>I:9 A"));
    CHECK_FALSE(passes("out tcp I:10>C:443 S"));
}

TEST_CASE_FIXTURE(Rig, "TTLs are kept between a minute and a day") {
    resolve("api.example.com", "203.0.113.5", 0);
    now += 59 * second;
    CHECK(passes("out tcp I:9>C:443 S"));
    now += 2 * second;
    CHECK_FALSE(passes("out tcp I:10>C:443 S"));
    resolve("api.example.com", "203.0.113.5", 0x7fffffff);
    now += 24 * 3600 * second + second;
    CHECK_FALSE(passes("out tcp I:11>C:443 S"));
}

TEST_CASE_FIXTURE(Rig, "wildcards stand for names below, not for the name itself") {
    CHECK(ask("a.example.org").passes());
    CHECK(ask("A.b.EXAMPLE.org").passes());
    CHECK(ask("example.org").action == Action::Answer);
    CHECK(ask("xexample.org").action == Action::Answer);
    CHECK(ask("api.example.com.evil.net").action == Action::Answer);
    CHECK(ask("x.api.example.com").action == Action::Answer);
}

TEST_CASE_FIXTURE(Rig, "a refused query is answered at once, with checksums that hold") {
    const auto verdict = ask("evil.net", 0x1234);
    CHECK(verdict.action == Action::Answer);
    CHECK(verdict.reason == Reason::NameRefused);
    const auto frame = firewall->answer();
    Packet packet;
    REQUIRE_FALSE(parse_packet({frame, static_cast<std::uint32_t>(frame.size())}, packet));
    CHECK(packet.destination_mac == guest_mac);
    CHECK(packet.source_mac == gateway_mac);
    CHECK(packet.tuple ==
          Tuple{address("10.0.0.2"), address("10.0.0.10"), protocol::udp, 53, 5000});
    std::uint32_t sum = protocol::udp + static_cast<std::uint32_t>(frame.size()) - 34;
    for (std::size_t i = 26; i + 1 < frame.size(); i += 2)
        sum += get16(&frame[i]);
    if (frame.size() % 2 != 0)
        sum += static_cast<std::uint32_t>(get8(&frame[frame.size() - 1])) << 8;
    CHECK(((sum & 0xffff) + (sum >> 16)) == 0xffff);
    std::uint32_t header = 0;
    for (std::size_t i = 14; i < 34; i += 2)
        header += get16(&frame[i]);
    CHECK(((header & 0xffff) + (header >> 16)) == 0xffff);
    const auto* dns = &frame[42];
    CHECK(get16(dns) == 0x1234);
    CHECK((get16(dns + 2) & 0x800f) == 0x8005);  // a response: REFUSED
}

TEST_CASE_FIXTURE(Rig, "an extended error where the query had EDNS") {
    auto query = message(7, query_flags, question("evil.net", 1));
    query[11] = std::byte{1};
    add8(query, 0);
    add16(query, 41);
    add16(query, 1232);
    add32(query, 0);
    add16(query, 0);
    CHECK(send(query).action == Action::Answer);
    const auto frame = firewall->answer();
    CHECK(get16(&frame[frame.size() - 2]) == 18);
    // With anything behind the last record, it is dropped: who knows what reads that.
    add8(query, 0);
    CHECK(send(query).action == Action::Drop);
}

TEST_CASE_FIXTURE(Rig, "aliases lead to the address, and only those of the answer") {
    REQUIRE(ask("api.example.com").passes());
    const auto alias = dns_name("edge.cdn.net");
    REQUIRE(reply(message(7, answer_flags, question("api.example.com", 1),
                          {record(alias, 1, 300, address_data("203.0.113.5")),
                           record(to_question, 5, 300, alias),
                           record(dns_name("other.net"), 1, 300, address_data("198.51.100.7"))}))
                .passes());
    CHECK(passes("out tcp I:9>C:443 S"));
    CHECK_FALSE(passes("out tcp I:9>D:443 S"));
}

TEST_CASE_FIXTURE(Rig, "answers that nobody asked for admit nothing") {
    const auto answer = [](std::string_view name, unsigned id) {
        return message(id, answer_flags, question(name, 1),
                       {record(to_question, 1, 300, address_data("203.0.113.5"))});
    };
    CHECK_FALSE(reply(answer("api.example.com", 7)).passes());  // no flow at all
    REQUIRE(ask("api.example.com", 7).passes());
    CHECK(reply(answer("api.example.com", 8)).passes());  // another identifier
    CHECK(reply(answer("b.example.org", 7)).passes());    // another name
    CHECK(reply(answer("API.example.com", 7)).passes());  // another spelling
    CHECK_FALSE(reply(answer("api.example.com", 7), 5001).passes());
    CHECK_FALSE(reply(answer("api.example.com", 7), 5000, "8.8.8.8").passes());
    CHECK_FALSE(passes("out tcp I:9>C:443 S"));
    CHECK(reply(answer("api.example.com", 7)).passes());
    CHECK(passes("out tcp I:9>C:443 S"));
    // Late: the query is forgotten after 10 s.
    REQUIRE(ask("b.example.org", 9).passes());
    now += 11 * second;
    CHECK(reply(message(9, answer_flags, question("b.example.org", 1),
                        {record(to_question, 1, 300, address_data("198.51.100.7"))}))
              .passes());
    CHECK_FALSE(passes("out tcp I:9>D:443 S"));
}

TEST_CASE_FIXTURE(Rig, "an answer may not point at private addresses or the monitor's") {
    for (const auto* inside : {"10.0.0.20", "192.168.1.1", "169.254.169.254", "127.0.0.1",
                               "224.0.0.1", "0.0.0.0", "100.64.0.1"})
        resolve("a.example.org", inside);
    CHECK_FALSE(passes("out tcp I:9>P:443 S"));
    CHECK(judge("out tcp I:9>IMDS:80 S").action == Action::Local);
    rule_set.private_name_answers = true;
    apply();
    resolve("a.example.org", "10.0.0.20");
    CHECK(passes("out tcp I:9>P:443 S"));
}

TEST_CASE_FIXTURE(Rig, "DNS over TCP and in fragments cannot be read, and is dropped") {
    CHECK(judge("out tcp I:5000>DNS:53 S").reason == Reason::NameRefused);
    CHECK(judge("out udp I:5000>DNS:53 frag 1 0 +").reason == Reason::NameRefused);
    CHECK(send(Bytes(5)).action == Action::Drop);
    CHECK(send(Bytes(12)).action == Action::Drop);
    // Without name rules, all of it passes unread.
    set_rules("");
    CHECK(passes("out tcp I:5000>DNS:53 S"));
    CHECK(send(Bytes(5)).passes());
}

TEST_CASE_FIXTURE(Rig, "IPv6: AAAA answers from an IPv6 resolver") {
    const auto asked = question("api.example.com", 28);
    CHECK(judge(Direction::Egress, ip({.source = address("2001:db8::10"),
                                       .destination = address("fd00:ec2::253"),
                                       .protocol = protocol::udp},
                                      udp(5000, 53, message(1, query_flags, asked))))
              .passes());
    CHECK(judge(Direction::Ingress,
                ip({.source = address("fd00:ec2::253"),
                    .destination = address("2001:db8::10"),
                    .protocol = protocol::udp},
                   udp(53, 5000,
                       message(1, answer_flags, asked,
                               {record(to_question, 28, 60, address_data("2001:db8:c::5"))}))))
              .passes());
    CHECK(passes("out tcp I6:9>C6:443 S"));
}

TEST_CASE_FIXTURE(Rig, "new rules keep what their names admitted, and end what others did") {
    resolve("api.example.com", "203.0.113.5");
    resolve("a.example.org", "198.51.100.7");
    set_rules("out tcp 443-443 name:new.net; out tcp 443-443 name:api.example.com");
    CHECK(passes("out tcp I:9>C:443 S"));
    CHECK_FALSE(passes("out tcp I:9>D:443 S"));
    set_rules("out tcp 80-80 name:api.example.com");
    CHECK_FALSE(passes("out tcp I:10>C:443 S"));
    CHECK(passes("out tcp I:10>C:80 S"));
}

TEST_CASE("DNS names with odd labels match nothing, and loops of pointers end") {
    auto dotted = message(1, query_flags, question("a", 1));
    dotted[13] = std::byte{'.'};
    CHECK_FALSE(read_dns_query(dotted));
    Bytes loop;
    for (const auto value : {1U, query_flags, 1U, 0U, 0U, 0U, 0xc00cU, 1U, 1U})
        add16(loop, value);
    CHECK_FALSE(read_dns_query(loop));
    // The header holds no name, even where its bytes could be one: here the root's.
    Bytes header;
    for (const auto value : {1U, query_flags, 1U, 0U, 0U, 0U, 0xc003U, 1U, 1U})
        add16(header, value);
    CHECK_FALSE(read_dns_query(header));
    DnsAnswer answer;
    const auto asked = question("a.b", 1);
    // An alias chain that comes back to itself.
    CHECK_FALSE(read_dns_answer(
        message(1, answer_flags, asked, {record(to_question, 5, 1, to_question)}), answer));
    CHECK(read_dns_answer(message(1, answer_flags | 3, asked), answer));
    CHECK(answer.count == 0);
}

TEST_CASE("more names than the table holds push out those that end first") {
    NameTable table({1, 2}, 16);
    const std::vector<CompiledRules::NamePattern> patterns{{"*.x", {{6, 443, 443, 0}}}};
    table.set_patterns(patterns);
    for (std::uint32_t i = 0; i < 40; ++i)
        table.admit("a.x", Address::v4(1000 + i), 100 + i, 1);
    CHECK(table.size(1) == 16);
    const Tuple last{Address::v4(1), Address::v4(1039), protocol::tcp, 9, 443};
    CHECK(table.match(patterns, last, 1) == 0);
    const Tuple first{Address::v4(1), Address::v4(1000), protocol::tcp, 9, 443};
    CHECK(table.match(patterns, first, 1) == Verdict::no_rule);
}

}  // namespace masu::net

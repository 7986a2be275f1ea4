// Random rules and packets: the firewall and the plain model of it must agree on every one.
#include "tests/unit/devices/net/firewall/model.hpp"

#include <doctest/doctest.h>

#include <random>

#include "tests/unit/devices/net/firewall/interface.hpp"

namespace masu::net {
namespace {

using fake::Interface;
using fake::Model;
using fake::ModelPacket;

class Chance {
  public:
    explicit Chance(std::uint32_t seed) : engine_(seed) {}
    std::size_t below(std::size_t n) {
        return std::uniform_int_distribution<std::size_t>(0, n - 1)(engine_);
    }
    bool one_in(std::size_t n) { return below(n) == 0; }
    template <class T>
    const T& of(const std::vector<T>& list) {
        return list[below(list.size())];
    }

  private:
    std::mt19937 engine_;
};

// Few of everything, so that rules and packets meet.
const std::vector<std::string> remote_addresses{
    "203.0.113.5", "203.0.113.6",  "198.51.100.7",  "10.0.0.20",     "10.0.0.30",
    "10.0.0.11",   "2001:db8::20", "2001:db8:c::5", "2001:db8:c::6",
};
const std::vector<std::uint16_t> ports{0, 21, 22, 23, 80, 443, 1024, 65535};
const std::vector<std::uint8_t> icmp_types{0, 3, 5, 8, 13, 14, 128, 129};
const std::vector<std::string> peers{
    "0.0.0.0/0",    "::/0",          "203.0.113.0/24",    "203.0.113.5/32", "128.0.0.0/1",
    "10.0.0.16/28", "2001:db8::/32", "2001:db8:c::4/127", "10.0.0.0/8",
};
const std::vector<int> protocols{-1, 6, 6, 17, 17, 1, 58, 47, 50};

Rule random_rule(Chance& chance, std::size_t number) {
    Rule rule{.id = fmt::format("sgr-{}", number),
              .direction = chance.one_in(2) ? Direction::Ingress : Direction::Egress,
              .protocol = chance.of(protocols)};
    if (rule.protocol == 6 || rule.protocol == 17) {
        const auto a = chance.one_in(4) ? 0 : chance.of(ports);
        const auto b = chance.one_in(4) ? 65535 : chance.of(ports);
        rule.from = std::min(a, b);
        rule.to = std::max(a, b);
    } else if (rule.protocol == 1 || rule.protocol == 58) {
        if (!chance.one_in(3)) {
            rule.from = chance.of(icmp_types);
            rule.to = chance.one_in(2) ? Rule::any : static_cast<int>(chance.below(2));
        }
    }
    switch (chance.below(5)) {
        case 0:
            rule.peer = GroupReference{chance.one_in(2) ? "sg-b" : "sg-g"};
            break;
        case 1:
            rule.peer = PrefixListReference{"pl-a"};
            break;
        default:
            rule.peer = *parse_cidr(chance.of(peers));
    }
    return rule;
}

RuleSet random_rules(Chance& chance) {
    RuleSet set;
    const auto count = chance.one_in(8) ? 200 : chance.below(6);
    for (std::size_t i = 0; i < count; ++i)
        set.rules.push_back(random_rule(chance, i));
    for (const auto direction : {Direction::Ingress, Direction::Egress})
        if (chance.one_in(3))
            set.rules.push_back({.id = "open",
                                 .direction = direction,
                                 .peer = *parse_cidr(chance.one_in(2) ? "0.0.0.0/0" : "::/0")});
    set.prefix_lists["pl-a"] = {*parse_cidr("198.51.100.0/30"), *parse_cidr("2001:db8:c::6/128")};
    if (chance.one_in(10))
        set.prefix_lists["pl-a"].push_back(*parse_cidr("0.0.0.0/0"));
    set.timeouts.tcp_established = chance.one_in(2) ? 60 : 432'000;
    return set;
}

ModelPacket random_packet(Chance& chance) {
    const auto remote = fake::address(chance.of(remote_addresses));
    const bool v4 = remote.family == Family::V4;
    const auto local = fake::address(v4 ? "10.0.0.10" : "2001:db8::10");
    ModelPacket packet{.direction = chance.one_in(2) ? Direction::Ingress : Direction::Egress,
                       .tuple = {}};
    auto& tuple = packet.tuple;
    const bool out = packet.direction == Direction::Egress;
    tuple.source = out ? local : remote;
    tuple.destination = out ? remote : local;
    switch (chance.below(6)) {
        case 0:
            tuple.protocol = v4 ? protocol::icmp : protocol::icmpv6;
            break;
        case 1:
            tuple.protocol = chance.one_in(2) ? 47 : 50;
            break;
        case 2:
        case 3:
            tuple.protocol = protocol::udp;
            break;
        default:
            tuple.protocol = protocol::tcp;
    }
    if (tuple.protocol == protocol::tcp || tuple.protocol == protocol::udp) {
        tuple.source_port = chance.of(ports);
        tuple.destination_port = chance.of(ports);
    }
    using namespace tcp_flag;
    static const std::vector<std::uint8_t> flags{syn, syn | ack, ack, ack,
                                                 ack, fin | ack, rst, rst | ack};
    packet.flags = tuple.protocol == protocol::tcp ? chance.of(flags) : std::uint8_t{0};
    if (tuple.protocol == protocol::icmp || tuple.protocol == protocol::icmpv6) {
        tuple.source_port = static_cast<std::uint16_t>(chance.below(2));
        tuple.destination_port =
            static_cast<std::uint16_t>(chance.of(icmp_types) << 8 | chance.below(2));
    }
    return packet;
}

fake::Bytes to_bytes(const ModelPacket& packet) {
    const auto& tuple = packet.tuple;
    fake::Bytes payload(24);
    // Sequence and acknowledgment are all 0, so that every RST is where it belongs.
    if (tuple.protocol == protocol::tcp)
        payload = fake::tcp(tuple.source_port, tuple.destination_port,
                            {.flags = packet.flags, .sequence = 0});
    else if (tuple.protocol == protocol::udp)
        payload = fake::udp(tuple.source_port, tuple.destination_port);
    else if (tuple.protocol == protocol::icmp || tuple.protocol == protocol::icmpv6)
        payload = fake::icmp(tuple.icmp_type(), tuple.icmp_code(), tuple.source_port);
    return fake::ip(
        {.source = tuple.source, .destination = tuple.destination, .protocol = tuple.protocol},
        payload);
}

// An identifier is part of a query only.
bool is_query(const Tuple& tuple) {
    const auto type = tuple.icmp_type();
    return tuple.protocol == protocol::icmp ? type != 3 && type != 5 && type < 128 : type >= 128;
}

struct Pair {
    Interface interface;
    Model model;

    void new_rules(Chance& chance) {
        interface.rule_set = random_rules(chance);
        model.replace_rules(interface.rule_set);
        interface.rule_set.related_icmp_errors = false;
        interface.members["sg-b"] = {fake::address(chance.of(remote_addresses)),
                                     fake::address("2001:db8::20")};
        model.members = interface.members;
        interface.apply();
    }
};

}  // namespace

TEST_CASE("the firewall and the plain model agree on random rules and packets") {
    for (std::uint32_t seed = 1; seed <= 150; ++seed) {
        Chance chance(seed);
        Pair pair;
        pair.new_rules(chance);
        for (int step = 0; step < 250; ++step) {
            if (chance.one_in(60))
                pair.new_rules(chance);
            if (chance.one_in(4))
                pair.interface.now +=
                    chance.of(std::vector<Nanoseconds>{1, 9, 11, 31, 61, 121, 181, 601}) *
                    fake::second;
            auto packet = random_packet(chance);
            auto& tuple = packet.tuple;
            const bool icmp =
                tuple.protocol == protocol::icmp || tuple.protocol == protocol::icmpv6;
            if (icmp && !is_query(tuple))
                tuple.source_port = 0;
            const auto verdict = pair.interface.judge(packet.direction, to_bytes(packet));
            const bool expected = pair.model.passes(packet, pair.interface.now);
            REQUIRE_MESSAGE(verdict.passes() == expected, "seed ", seed, " step ", step, ": ",
                            to_string(verdict.reason), " protocol ", int{tuple.protocol}, " ",
                            to_string(tuple.source), ":", tuple.source_port, " > ",
                            to_string(tuple.destination), ":", tuple.destination_port, " flags ",
                            int{packet.flags}, " direction ", int(packet.direction));
        }
    }
}

}  // namespace masu::net

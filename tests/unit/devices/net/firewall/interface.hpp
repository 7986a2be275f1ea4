// An interface with its firewall, for tests: rules and packets as lines of text, and a clock that
// the test moves.
#pragma once

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "devices/net/firewall/firewall.hpp"
#include "tests/unit/devices/net/firewall/frames.hpp"

namespace masu::net::fake {

constexpr Nanoseconds second = 1'000'000'000;

// The reference's hosts.
inline const Names& hosts() {
    static const Names names{
        {"I", "10.0.0.10"},          {"I6", "2001:db8::10"},     {"C", "203.0.113.5"},
        {"C6", "2001:db8:c::5"},     {"D", "198.51.100.7"},      {"P", "10.0.0.20"},
        {"P6", "2001:db8::20"},      {"Q", "10.0.0.30"},         {"S", "10.0.0.11"},
        {"R", "192.0.2.254"},        {"Pub", "203.0.113.200"},   {"X6", "2001:db8::99"},
        {"DNS", "10.0.0.2"},         {"NTP", "169.254.169.123"}, {"GOOGLE", "8.8.8.8"},
        {"IMDS", "169.254.169.254"}, {"DNS6", "fd00:ec2::253"},  {"all", "255.255.255.255"},
    };
    return names;
}

inline std::vector<std::string> split(std::string_view text, char separator) {
    std::vector<std::string> parts;
    std::istringstream stream{std::string(text)};
    for (std::string part; std::getline(stream, part, separator);) {
        const auto first = part.find_first_not_of(' ');
        const auto last = part.find_last_not_of(' ');
        if (first != std::string::npos)
            parts.push_back(part.substr(first, last - first + 1));
    }
    return parts;
}

// "in tcp 22 C/32", "in icmp 8/-1 any", "out -1 any6", "in tcp 3306 sg-b", "out tcp 443 name:x.org"
inline Rule parse_rule(const std::string& text) {
    std::istringstream words(text);
    std::string way;
    std::string number;
    std::string ports;
    std::string peer;
    words >> way >> number;
    Rule rule{.id = "sgr-" + text,
              .direction = way == "in" ? Direction::Ingress : Direction::Egress};
    rule.protocol = number == "tcp"      ? protocol::tcp
                    : number == "udp"    ? protocol::udp
                    : number == "icmp"   ? protocol::icmp
                    : number == "icmpv6" ? protocol::icmpv6
                                         : std::stoi(number);
    if (number.starts_with("icmp") || number == "tcp" || number == "udp") {
        words >> ports;
        const auto cut = ports.find_first_of("-/", 1);
        rule.from = std::stoi(ports.substr(0, cut));
        rule.to = cut == std::string::npos ? rule.from : std::stoi(ports.substr(cut + 1));
    }
    words >> peer;
    if (peer.starts_with("sg-"))
        rule.peer = GroupReference{peer};
    else if (peer.starts_with("pl-"))
        rule.peer = PrefixListReference{peer};
    else if (peer.starts_with("name:"))
        rule.peer = DnsName{peer.substr(5)};
    else if (peer == "any" || peer == "any6")
        rule.peer = *parse_cidr(peer == "any" ? "0.0.0.0/0" : "::/0");
    else if (const auto slash = peer.find('/'); hosts().contains(peer.substr(0, slash)))
        rule.peer = *parse_cidr(hosts().find(peer.substr(0, slash))->second + peer.substr(slash));
    else
        rule.peer = *parse_cidr(peer);
    return rule;
}

class Interface {
  public:
    explicit Interface(const FirewallLimits& limits = {}) {
        config.mac = guest_mac;
        config.addresses = {address("10.0.0.10"), address("2001:db8::10")};
        config.resolvers = {address("10.0.0.2"), address("fd00:ec2::253")};
        config.time_servers = {address("169.254.169.123")};
        config.local = {address("169.254.169.254"), address("fd00:ec2::254"), address("fe80::1")};
        firewall = std::move(*Firewall::create(config, limits));
        members["sg-b"] = {address("10.0.0.20"), address("2001:db8::20")};
        members["sg-g"] = {address("10.0.0.10"), address("10.0.0.11")};
    }

    // Lines separated by ';'. "E*" stands for egress open to everyone.
    void set_rules(std::string_view text) {
        rule_set.rules.clear();
        for (const auto& line : split(text, ';')) {
            if (line == "E*") {
                rule_set.rules.push_back(parse_rule("out -1 any"));
                rule_set.rules.push_back(parse_rule("out -1 any6"));
            } else {
                rule_set.rules.push_back(parse_rule(line));
            }
        }
        apply();
    }
    void apply() {
        auto compiled = compile(rule_set, members);
        REQUIRE_MESSAGE(compiled, (compiled ? "" : compiled.error().message));
        firewall->replace_rules(*compiled);
    }

    Verdict judge_frame(Direction direction, const Bytes& frame) {
        const Frame given{std::span(frame).first(std::min(frame.size(), max_header_bytes)),
                          static_cast<std::uint32_t>(frame.size())};
        auto verdict = firewall->judge(direction, given, now);
        if (verdict.action == Action::NeedWholeFrame)
            verdict = firewall->judge(direction, {frame, given.length}, now);
        return verdict;
    }
    Verdict judge(Direction direction, const Bytes& packet) {
        const bool out = direction == Direction::Egress;
        return judge_frame(direction,
                           ethernet(out ? guest_mac : gateway_mac, out ? gateway_mac : guest_mac,
                                    ethertype_of(packet), packet));
    }
    // "in tcp C:4000>I:22 S"
    Verdict judge(std::string_view line) {
        const auto space = line.find(' ');
        const auto direction =
            line.substr(0, space) == "in" ? Direction::Ingress : Direction::Egress;
        return judge(direction, PacketText(line.substr(space + 1), hosts()).read());
    }
    bool passes(std::string_view line) { return judge(line).passes(); }

    InterfaceConfig config;
    RuleSet rule_set;
    GroupMembers members;
    std::unique_ptr<Firewall> firewall;
    Nanoseconds now = 1000 * second;
};

}  // namespace masu::net::fake

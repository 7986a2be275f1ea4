// Reading rule sets.
#include "vmm/api/rule_set_body.hpp"

#include <algorithm>
#include <array>
#include <charconv>

namespace masu::api {
namespace {

constexpr std::size_t max_id = 64;
constexpr std::array directions{std::pair(std::string_view("ingress"), net::Direction::Ingress),
                                std::pair(std::string_view("egress"), net::Direction::Egress)};

// A field that fails to parse is a complaint about it.
template <class T>
T value_or_complain(JsonObject& body, std::string_view key, Result<T> parsed) {
    if (!parsed)
        body.complain(key, "is refused: " + parsed.error().message);
    return std::move(parsed).value_or(T());
}

net::Peer read_peer(JsonObject& body) {
    const auto cidr = body.string("cidr");
    const auto group = body.string("group", max_id);
    const auto list = body.string("prefix_list", max_id);
    const auto name = body.string("name");
    const int given = cidr.has_value() + group.has_value() + list.has_value() + name.has_value();
    if (given != 1)
        body.complain("cidr", "must be there, or one of group, prefix_list and name, and only one");
    if (group)
        return net::GroupReference{*group};
    if (list)
        return net::PrefixListReference{*list};
    if (name)
        return net::DnsName{value_or_complain(body, "name", parse_dns_pattern(*name))};
    if (cidr)
        return value_or_complain(body, "cidr", net::parse_cidr(*cidr));
    return net::Prefix();
}

Result<net::Rule> read_rule(JsonObject& body) {
    constexpr std::uint64_t max_port = 65535;
    net::Rule rule;
    rule.id = body.required_string("id", max_id);
    const auto direction = body.choice<net::Direction>("direction", directions);
    if (!direction)
        body.complain("direction", "is missing");
    rule.direction = direction.value_or(net::Direction::Ingress);
    rule.protocol =
        value_or_complain(body, "protocol", parse_protocol(body.required_string("protocol", 16)));
    if (const auto from = body.integer("from_port", max_port))
        rule.from = static_cast<int>(*from);
    if (const auto to = body.integer("to_port", max_port))
        rule.to = static_cast<int>(*to);
    rule.peer = read_peer(body);
    TRY(body.finish());
    return rule;
}

Result<> read_lists(JsonObject& body, net::RuleSet& rules) {
    for (auto& list : body.objects("prefix_lists")) {
        auto& prefixes = rules.prefix_lists[list.required_string("id", max_id)];
        for (const auto& cidr : list.strings("cidrs"))
            prefixes.push_back(value_or_complain(list, "cidrs", net::parse_cidr(cidr)));
        TRY(list.finish());
    }
    return {};
}

Result<> read_members(JsonObject& body, net::GroupMembers& members) {
    for (auto& group : body.objects("members")) {
        auto& addresses = members[group.required_string("group", max_id)];
        for (const auto& address : group.strings("addresses"))
            addresses.push_back(value_or_complain(group, "addresses", net::parse_address(address)));
        TRY(group.finish());
    }
    return {};
}

Result<> read_tracking(JsonObject& body, net::FlowTimeouts& timeouts) {
    constexpr std::uint64_t longest = 432'000;
    auto tracking = body.object("connection_tracking");
    if (!tracking)
        return {};
    const auto read = [&](std::string_view key, std::uint32_t& seconds) {
        seconds = static_cast<std::uint32_t>(tracking->integer(key, longest).value_or(seconds));
    };
    read("tcp_established_timeout", timeouts.tcp_established);
    read("udp_stream_timeout", timeouts.udp_stream);
    read("udp_timeout", timeouts.udp);
    return tracking->finish();
}

}  // namespace

Result<RuleSetBody> read_rule_set(JsonObject& body) {
    static constexpr std::array words{std::pair(std::string_view("related"), true),
                                      std::pair(std::string_view("strict"), false)};
    RuleSetBody set;
    set.groups = body.strings("security_groups");
    auto rules = body.objects("rules");
    if (rules.size() > net::RuleSet::max_rules)
        return fail("{}: {} rules, but {} is the most that one interface takes", body.where(),
                    rules.size(), net::RuleSet::max_rules);
    if (!body.has("rules"))
        body.complain("rules", "is missing; no rules at all is []");
    for (auto& rule : rules)
        set.rules.rules.push_back(TRY(read_rule(rule)));
    TRY(read_lists(body, set.rules));
    TRY(read_members(body, set.members));
    TRY(read_tracking(body, set.rules.timeouts));
    set.rules.related_icmp_errors = body.choice<bool>("icmp_errors", words).value_or(true);
    set.rules.private_name_answers = body.boolean("private_name_answers").value_or(false);
    TRY(body.finish());
    return set;
}

Result<int> parse_protocol(std::string_view text) {
    static constexpr std::array<std::pair<std::string_view, int>, 5> words{
        {{"tcp", 6}, {"udp", 17}, {"icmp", 1}, {"icmpv6", 58}, {"all", net::Rule::any}}};
    for (const auto& [word, number] : words)
        if (word == text)
            return number;
    int number = 0;
    const auto [end, error] = std::from_chars(text.begin(), text.end(), number);
    if (error != std::errc{} || end != text.end() || number < net::Rule::any || number > 255)
        return fail(
            "\"{}\" is no protocol; use tcp, udp, icmp, icmpv6, -1 (all) or a number from "
            "0 to 255",
            text);
    return number;
}

std::string protocol_text(int protocol) {
    switch (protocol) {
        case 6:
            return "tcp";
        case 17:
            return "udp";
        case 1:
            return "icmp";
        case 58:
            return "icmpv6";
        default:
            return std::to_string(protocol);
    }
}

Result<std::string> parse_dns_pattern(std::string_view text) {
    std::string name(text);
    std::ranges::transform(name, name.begin(), [](char c) {
        return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    });
    if (name.ends_with('.'))
        name.pop_back();
    const auto fixed = std::string_view(name).substr(name.starts_with("*.") ? 2 : 0);
    std::size_t label = 0;
    bool good = !fixed.empty() && name.size() <= 253 && fixed.back() != '.';
    for (const char c : fixed) {
        const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
        good = good && (plain || (c == '.' && label != 0)) && label < 64;
        label = c == '.' ? 0 : label + 1;
    }
    if (!good || label > 63)
        return fail("\"{}\" is no DNS name such as api.example.com or *.example.org", text);
    return name;
}

}  // namespace masu::api

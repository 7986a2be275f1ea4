// Reading rules from options, and telling them to people.
#include "tools/masu/rule_text.hpp"

#include <charconv>

#include "vmm/api/rule_set_body.hpp"

namespace masu::cli {
namespace {

// "all" and "-1" are any; nothing is any too.
Result<int> number_or_any(std::string_view what, std::string_view text, int most) {
    if (text.empty() || text == "all" || text == "-1")
        return net::Rule::any;
    int number = 0;
    const auto [end, error] = std::from_chars(text.begin(), text.end(), number);
    if (error != std::errc{} || end != text.end() || number < 0 || number > most)
        return fail(
            "InvalidParameterValue: the {} is \"{}\", but must be a number from 0 to {}, or "
            "-1 for all",
            what, text, most);
    return number;
}

Result<> set_ports(net::Rule& rule, std::string_view text) {
    constexpr int most = 65535;
    if (text.empty())
        return fail(
            "InvalidParameterValue: Must specify both from and to ports with TCP/UDP; give "
            "--port 22, --port 7000-8000 or --port all");
    if (text == "all" || text == "-1") {
        rule.from = 0;
        rule.to = most;
        return {};
    }
    const auto dash = text.find('-');
    rule.from = TRY(number_or_any("port", text.substr(0, dash), most));
    rule.to = dash == std::string_view::npos
                  ? rule.from
                  : TRY(number_or_any("port", text.substr(dash + 1), most));
    if (rule.from == net::Rule::any || rule.to == net::Rule::any || rule.from > rule.to)
        return fail(
            "InvalidParameterValue: the port range \"{}\" must be two numbers from 0 to {}, "
            "the lower one first",
            text, most);
    return {};
}

}  // namespace

Result<net::Rule> parse_rule(const RuleText& text, net::Peer peer) {
    auto protocol = api::parse_protocol(text.protocol);
    if (!protocol)
        return in_context("InvalidParameterValue", std::move(protocol.error()));
    net::Rule rule{.id = {},
                   .direction = text.egress ? net::Direction::Egress : net::Direction::Ingress,
                   .protocol = *protocol,
                   .peer = std::move(peer)};
    const bool icmp =
        rule.protocol == net::protocol::icmp || rule.protocol == net::protocol::icmpv6;
    const bool has_ports =
        rule.protocol == net::protocol::tcp || rule.protocol == net::protocol::udp;
    if (!icmp && !(text.icmp_type.empty() && text.icmp_code.empty()))
        return fail(
            "InvalidParameterValue: --icmp-type and --icmp-code go with --protocol icmp or "
            "icmpv6 only");
    if (has_ports)
        TRY(set_ports(rule, text.port));
    if (icmp) {
        if (!text.port.empty() && text.port != "-1" && text.port != "all")
            return fail(
                "InvalidParameterValue: ICMP has no ports; give --icmp-type and --icmp-code");
        constexpr int most = 255;
        rule.from = TRY(number_or_any("ICMP type", text.icmp_type, most));
        rule.to = TRY(number_or_any("ICMP code", text.icmp_code, most));
        if (rule.from == net::Rule::any && rule.to != net::Rule::any)
            return fail("InvalidParameterValue: an ICMP code needs a type; give --icmp-type");
    }
    // What no packet can match, and so is not what was meant.
    if (const auto* prefix = std::get_if<net::Prefix>(&rule.peer)) {
        const bool v6 = prefix->address.family == net::Family::V6;
        if (rule.protocol == (v6 ? net::protocol::icmp : net::protocol::icmpv6))
            return fail("InvalidParameterValue: {} and {} are of two families of addresses; use {}",
                        api::protocol_text(rule.protocol), to_string(*prefix),
                        v6 ? "icmpv6" : "icmp");
    }
    if (std::holds_alternative<net::DnsName>(rule.peer) && !text.egress)
        return fail(
            "InvalidParameterValue: a DNS name can only be the peer of an egress rule; add "
            "--egress");
    return rule;
}

std::string describe(const net::Rule& rule) {
    std::string text = rule.protocol == net::Rule::any ? "all" : api::protocol_text(rule.protocol);
    if (rule.protocol == net::protocol::tcp || rule.protocol == net::protocol::udp)
        text += rule.from == rule.to ? fmt::format(" {}", rule.from)
                                     : fmt::format(" {}-{}", rule.from, rule.to);
    else if (rule.from != net::Rule::any)
        text += rule.to == net::Rule::any ? fmt::format(" type {}", rule.from)
                                          : fmt::format(" type {} code {}", rule.from, rule.to);
    text += rule.direction == net::Direction::Ingress ? " from " : " to ";
    if (const auto* prefix = std::get_if<net::Prefix>(&rule.peer))
        return text + to_string(*prefix);
    if (const auto* group = std::get_if<net::GroupReference>(&rule.peer))
        return text + group->group_id;
    if (const auto* list = std::get_if<net::PrefixListReference>(&rule.peer))
        return text + list->list_id;
    return text + std::get<net::DnsName>(rule.peer).name;
}

}  // namespace masu::cli

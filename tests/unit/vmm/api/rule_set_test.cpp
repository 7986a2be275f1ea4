// Rule-set documents: what is read, and what is refused in one sentence.
#include "vmm/api/rule_set_body.hpp"

#include <doctest/doctest.h>

namespace masu::api {
namespace {

Result<RuleSetBody> read(std::string_view text) {
    auto body = TRY(JsonObject::parse(text, "security-groups"));
    return read_rule_set(body);
}
std::string error_of(std::string_view rule) {
    const auto set = read(fmt::format(R"({{"rules": [{{"id": "r", {}}}]}})", rule));
    return set ? std::string() : set.error().message;
}

}  // namespace

TEST_CASE("a whole rule set is read") {
    const auto set = read(R"({
        "security_groups": ["sg-1"],
        "rules": [
            {"id": "r1", "direction": "ingress", "protocol": "tcp", "from_port": 22, "to_port": 23,
             "cidr": "100.68.0.18/18"},
            {"id": "r2", "direction": "egress", "protocol": "-1", "group": "sg-1"},
            {"id": "r3", "direction": "ingress", "protocol": "1", "from_port": 8, "cidr": "0.0.0.0/0"},
            {"id": "r4", "direction": "egress", "protocol": "tcp", "from_port": 443, "to_port": 443,
             "name": "*.Example.org."}],
        "members": [{"group": "sg-1", "addresses": ["10.0.0.1", "2001:db8::1"]}],
        "prefix_lists": [{"id": "pl-1", "cidrs": ["10.0.0.0/8"]}],
        "connection_tracking": {"tcp_established_timeout": 60},
        "icmp_errors": "strict"})");
    REQUIRE(set);
    const auto& rules = set->rules.rules;
    REQUIRE(rules.size() == 4);
    CHECK(rules[0].protocol == 6);
    CHECK(rules[0].to == 23);
    CHECK(to_string(std::get<net::Prefix>(rules[0].peer)) == "100.68.0.0/18");
    CHECK(std::get<net::GroupReference>(rules[1].peer).group_id == "sg-1");
    CHECK(rules[2].from == 8);
    CHECK(rules[2].to == net::Rule::any);
    CHECK(std::get<net::DnsName>(rules[3].peer).name == "*.example.org");
    CHECK(set->members.at("sg-1").size() == 2);
    CHECK(set->rules.prefix_lists.at("pl-1").size() == 1);
    CHECK(set->rules.timeouts.tcp_established == 60);
    CHECK_FALSE(set->rules.related_icmp_errors);
    CHECK(net::compile(set->rules, set->members));
}

TEST_CASE("what is wrong with a rule is said") {
    CHECK(read("{}").error().message.contains("`rules` is missing"));
    CHECK(error_of(R"("direction": "in", "protocol": "tcp", "cidr": "::/0")")
              .contains("`direction`"));
    CHECK(error_of(R"("direction": "ingress", "protocol": "tcq", "cidr": "::/0")").contains("tcq"));
    CHECK(error_of(R"("direction": "ingress", "protocol": "-1")").contains("`cidr`"));
    CHECK(error_of(R"("direction": "ingress", "protocol": "-1", "cidr": "::/0", "group": "g")")
              .contains("only one"));
    CHECK(error_of(R"("direction": "ingress", "protocol": "-1", "cidr": "10.0.0.1")")
              .contains("prefix length"));
    CHECK(error_of(R"("direction": "ingress", "protocol": "-1", "cidr": "::/0", "x": 1)")
              .contains("unknown field `x`"));
    CHECK(
        error_of(R"("direction": "ingress", "protocol": "tcp", "from_port": 65536, "cidr": "::/0")")
            .contains("65536"));
}

TEST_CASE("names that rules may state") {
    for (const auto* good :
         {"a", "api.example.com", "*.example.org", "x_y.example.org", "xn--p1ai"})
        CHECK(parse_dns_pattern(good));
    for (const auto* bad :
         {"", ".", "*", "*.", "a..b", ".a", "a.*.b", "*a.b", "a b", "a/b", "**.a"})
        CHECK_FALSE(parse_dns_pattern(bad));
    CHECK_FALSE(parse_dns_pattern(std::string(64, 'a') + ".b"));
    CHECK(parse_dns_pattern(std::string(63, 'a') + ".b"));
}

}  // namespace masu::api

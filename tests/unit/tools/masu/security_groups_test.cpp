// Security groups as EC2 keeps them: names, rules, limits, and a file that survives.
#include "tools/masu/security_groups.hpp"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>
#include <thread>

#include <boost/json.hpp>

#include "base/atomic_file.hpp"
#include "tools/masu/group_rules.hpp"
#include "tools/masu/rule_text.hpp"
#include "vmm/api/rule_set_body.hpp"

namespace masu::cli {
namespace {

struct TemporaryFolder {
    std::string path = "/tmp/masu-groups-test-XXXXXX";
    TemporaryFolder() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
    ~TemporaryFolder() { std::filesystem::remove_all(path); }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
};

GroupBook new_book() {
    auto book = GroupBook::initial();
    REQUIRE(book);
    return *std::move(book);
}

GroupRule tcp_rule(std::string port, std::string_view cidr = "0.0.0.0/0", bool egress = false) {
    auto rule = parse_rule({.egress = egress,
                            .protocol = "tcp",
                            .port = std::move(port),
                            .icmp_type = {},
                            .icmp_code = {}},
                           *net::parse_cidr(cidr));
    REQUIRE_MESSAGE(rule, (rule ? "" : rule.error().message));
    return {*rule, {}};
}

template <class T>
std::string error_of(const Result<T>& result) {
    return result ? "" : result.error().message.substr(0, result.error().message.find(':'));
}

Result<net::Rule> parsed(const char* protocol, const char* port, const char* type = "",
                         const char* code = "", const char* cidr = "0.0.0.0/0") {
    return parse_rule(
        {.egress = false, .protocol = protocol, .port = port, .icmp_type = type, .icmp_code = code},
        *net::parse_cidr(cidr));
}

}  // namespace

TEST_CASE("the group default admits itself and lets all out; it stays") {
    auto book = new_book();
    const auto* group = *book.find("default");
    REQUIRE(group->rules.size() == 3);
    CHECK(std::get<net::GroupReference>(group->rules[0].rule.peer).group_id == group->id);
    CHECK(*book.find(group->id) == group);
    CHECK(error_of(book.remove("default")) == "CannotDelete");
}

TEST_CASE("a new group admits nothing and lets all out") {
    auto book = new_book();
    const auto id = book.create("web  ", "web servers");
    REQUIRE(id);
    const auto* group = *book.find("web");
    CHECK(group->id == *id);
    REQUIRE(group->rules.size() == 2);
    for (const auto& [rule, description] : group->rules)
        CHECK(rule.direction == net::Direction::Egress);
    CHECK(error_of(book.create("web", "again")) == "InvalidGroup.Duplicate");
    CHECK(error_of(book.create("sg-x", "d")) == "InvalidParameterValue");
    CHECK(error_of(book.create("", "d")) == "InvalidParameterValue");
    CHECK(error_of(book.create("a%b", "d")) == "InvalidParameterValue");
    CHECK(error_of(book.create(std::string(256, 'a'), "d")) == "InvalidParameterValue");
    CHECK(error_of(book.create("db", "")) == "MissingParameter");
    CHECK(error_of(book.find("db")) == "InvalidGroup.NotFound");
}

TEST_CASE("65: rules are kept in canonical form, once each") {
    auto book = new_book();
    REQUIRE(book.create("web", "d"));
    const auto id = book.authorize("web", tcp_rule("22", "100.68.0.18/18"));
    REQUIRE(id);
    CHECK(error_of(book.authorize("web", tcp_rule("22", "100.68.0.0/18"))) ==
          "InvalidPermission.Duplicate");
    CHECK(book.authorize("web", tcp_rule("22", "100.68.0.0/18", true)));
    CHECK(describe((*book.find("web"))->rules[2].rule) == "tcp 22 from 100.68.0.0/18");
    CHECK(error_of(book.revoke("web", tcp_rule("23", "100.68.0.0/18").rule)) ==
          "InvalidPermission.NotFound");
    CHECK(book.revoke("web", tcp_rule("22", "100.68.1.1/18").rule));
    CHECK(error_of(book.revoke_id("web", *id)) == "InvalidSecurityGroupRuleId.NotFound");
    CHECK(error_of(book.authorize("db", tcp_rule("22"))) == "InvalidGroup.NotFound");
}

TEST_CASE("67, 68: protocols, ports and ICMP types as EC2 takes them") {
    CHECK(error_of(parsed("icmp", "", "-1", "4")) == "InvalidParameterValue");
    CHECK(error_of(parsed("tcp", "")) == "InvalidParameterValue");
    CHECK(error_of(parsed("tcp", "65535-1")) == "InvalidParameterValue");
    CHECK(error_of(parsed("tcp", "65536")) == "InvalidParameterValue");
    CHECK(error_of(parsed("tcp", "22-")) == "InvalidParameterValue");
    CHECK(error_of(parsed("tcp", "http")) == "InvalidParameterValue");
    CHECK(error_of(parsed("tcq", "1")) == "InvalidParameterValue");
    CHECK(error_of(parsed("256", "")) == "InvalidParameterValue");
    CHECK(error_of(parsed("tcp", "1", "8")) == "InvalidParameterValue");
    CHECK(error_of(parsed("icmp", "8")) == "InvalidParameterValue");
    CHECK(error_of(parsed("icmpv6", "")) == "InvalidParameterValue");
    CHECK(parsed("all", "")->protocol == net::Rule::any);
    CHECK(parsed("6", "all")->to == 65535);
    CHECK(parsed("17", "53")->from == 53);
    CHECK(parsed("47", "80")->from == net::Rule::any);
    CHECK(parsed("icmp", "")->from == net::Rule::any);
    CHECK(parsed("icmp", "-1", "8", "-1")->to == net::Rule::any);
    CHECK(parsed("icmpv6", "", "128", "0", "::/0")->from == 128);
    CHECK_FALSE(parse_rule(
        {.egress = false, .protocol = "tcp", .port = "443", .icmp_type = {}, .icmp_code = {}},
        net::DnsName{"a.org"}));
}

TEST_CASE("60 rules each way, counted for each family") {
    auto book = new_book();
    REQUIRE(book.create("web", "d"));
    const auto group_peer = [&](int port) {
        auto rule = tcp_rule(std::to_string(port));
        rule.rule.peer = net::GroupReference{"sg-1"};
        return rule;
    };
    for (int i = 0; i < 59; ++i)
        REQUIRE(book.authorize("web", tcp_rule(std::to_string(i))));
    REQUIRE(book.authorize("web", group_peer(1)));
    CHECK(error_of(book.authorize("web", tcp_rule("99"))) == "RulesPerSecurityGroupLimitExceeded");
    CHECK(error_of(book.authorize("web", group_peer(2))) == "RulesPerSecurityGroupLimitExceeded");
    for (int i = 0; i < 59; ++i)
        REQUIRE(book.authorize("web", tcp_rule(std::to_string(i), "::/0")));
    CHECK(error_of(book.authorize("web", tcp_rule("99", "::/0"))) ==
          "RulesPerSecurityGroupLimitExceeded");
    CHECK(book.authorize("web", tcp_rule("99", "::/0", true)));
}

TEST_CASE("a group that others refer to stays") {
    auto book = new_book();
    const auto id = *book.create("web", "d");
    REQUIRE(book.create("db", "d"));
    auto rule = tcp_rule("5432");
    rule.rule.peer = net::GroupReference{id};
    REQUIRE(book.authorize("db", rule));
    CHECK(error_of(book.remove("web")) == "DependencyViolation");
    REQUIRE(book.revoke("db", rule.rule));
    CHECK(book.remove("web"));
    CHECK(error_of(book.find("web")) == "InvalidGroup.NotFound");
}

std::vector<PrefixListEntry> blocks(std::initializer_list<const char*> cidrs) {
    std::vector<PrefixListEntry> entries;
    for (const auto* cidr : cidrs)
        entries.push_back({*net::parse_cidr(cidr), "why"});
    return entries;
}

TEST_CASE("a prefix list has room for so many blocks, each once, and all of a change or none") {
    auto book = new_book();
    const auto id = book.create_list("offices", 3, blocks({"203.0.113.7/24", "2001:db8::/32"}));
    REQUIRE(id);
    CHECK(id->starts_with("pl-"));
    CHECK(*book.find_list("offices") == *book.find_list(*id));
    const auto entries = [&] { return (*book.find_list("offices"))->entries.size(); };
    CHECK(error_of(book.create_list("offices", 3, {})) == "InvalidParameterValue");
    CHECK(error_of(book.create_list("pl-x", 3, {})) == "InvalidParameterValue");
    CHECK(error_of(book.create_list("a%", 3, {})) == "InvalidParameterValue");
    CHECK(error_of(book.create_list("b", 1, blocks({"::/0", "0.0.0.0/0"}))) ==
          "PrefixListMaxEntriesExceeded");
    CHECK(error_of(book.find_list("b")) == "InvalidPrefixListId.NotFound");
    CHECK(error_of(book.add_entries("offices", blocks({"10.0.0.0/8", "203.0.113.0/24"}))) ==
          "InvalidParameterValue");
    CHECK(error_of(book.add_entries("offices", blocks({"10.0.0.0/8", "11.0.0.0/8"}))) ==
          "PrefixListMaxEntriesExceeded");
    CHECK(entries() == 2);
    CHECK(book.add_entries("offices", blocks({"10.0.0.0/8"})));
    CHECK(error_of(book.remove_entries(
              "offices", {*net::parse_cidr("10.0.0.0/8"), *net::parse_cidr("12.0.0.0/8")})) ==
          "InvalidParameterValue");
    CHECK(entries() == 3);
    CHECK(book.remove_entries("offices", {*net::parse_cidr("10.0.0.0/8")}));
    CHECK(entries() == 2);
    CHECK(book.remove_list("offices"));
    CHECK(error_of(book.remove_list("offices")) == "InvalidPrefixListId.NotFound");
}

TEST_CASE("a rule for a prefix list counts as the list's room, and keeps it") {
    auto book = new_book();
    REQUIRE(book.create("web", "d"));
    const auto id = *book.create_list("offices", 40, blocks({"203.0.113.0/24"}));
    auto rule = tcp_rule("22");
    rule.rule.peer = net::PrefixListReference{id};
    REQUIRE(book.authorize("web", rule));
    CHECK(error_of(book.remove_list("offices")) == "DependencyViolation");
    for (int i = 0; i < 20; ++i)
        REQUIRE(book.authorize("web", tcp_rule(std::to_string(i))));
    CHECK(error_of(book.authorize("web", tcp_rule("99"))) == "RulesPerSecurityGroupLimitExceeded");
    auto other = rule;
    other.rule.from = other.rule.to = 23;
    CHECK(error_of(book.authorize("web", other)) == "RulesPerSecurityGroupLimitExceeded");
    REQUIRE(book.revoke("web", rule.rule));
    CHECK(book.remove_list("offices"));
}

TEST_CASE("64: one to five groups") {
    auto book = new_book();
    std::vector<std::string> names;
    for (int i = 0; i < 6; ++i) {
        names.push_back("g" + std::to_string(i));
        REQUIRE(book.create(names.back(), "d"));
    }
    CHECK(error_of(resolve_groups(book, names)) == "SecurityGroupsPerInterfaceLimitExceeded");
    names.pop_back();
    names.push_back("g0");  // named twice
    CHECK(resolve_groups(book, names)->size() == 5);
    CHECK(resolve_groups(book, {})->front() == (*book.find("default"))->id);
}

TEST_CASE("the file holds all of it, and a failed change nothing of itself") {
    const TemporaryFolder folder;
    const GroupStore store(folder.path + "/state");
    const auto first = store.read();
    REQUIRE(first);
    CHECK((*store.read()->find("default"))->id == (*first->find("default"))->id);
    REQUIRE(store.change([](GroupBook& book) -> Result<> {
        TRY(book.create("web", "d"));
        auto rule = tcp_rule("7000-8000", "2001:db8::/32");
        rule.description = "why";
        TRY(book.authorize("web", rule));
        auto name = tcp_rule("443", "::/0", true);
        name.rule.peer = net::DnsName{"*.example.org"};
        TRY(book.authorize("web", name));
        TRY(book.create_list("offices", 7, blocks({"203.0.113.0/24", "2001:db8::/32"})));
        return {};
    }));
    CHECK_FALSE(store.change([](GroupBook& book) -> Result<> {
        TRY(book.create("half", "d"));
        return fail("no");
    }));
    const auto book = store.read();
    REQUIRE(book);
    CHECK_FALSE(book->find("half"));
    const auto* group = *book->find("web");
    REQUIRE(group->rules.size() == 4);
    CHECK(describe(group->rules[2].rule) == "tcp 7000-8000 from 2001:db8::/32");
    CHECK(group->rules[2].description == "why");
    CHECK(describe(group->rules[3].rule) == "tcp 443 to *.example.org");
    const auto* list = *book->find_list("offices");
    CHECK(list->max_entries == 7);
    REQUIRE(list->entries.size() == 2);
    CHECK(to_string(list->entries[1].prefix) == "2001:db8::/32");
    CHECK(list->entries[0].description == "why");

    REQUIRE(write_file_atomically(folder.path + "/state/security-groups.json", "{"));
    CHECK(store.read().error().message.contains("cannot be read"));
    CHECK_FALSE(store.change([](GroupBook&) -> Result<> { return {}; }));
}

TEST_CASE("writers wait for each other") {
    const TemporaryFolder folder;
    const GroupStore store(folder.path);
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i)
        threads.emplace_back([&store, i] {
            for (int j = 0; j < 5; ++j)
                CHECK(store.change([&](GroupBook& book) -> Result<> {
                    TRY(book.create(fmt::format("g{}-{}", i, j), "d"));
                    return {};
                }));
        });
    threads.clear();
    CHECK(store.read()->groups().size() == 21);
}

TEST_CASE("the document for a monitor is one that the monitor reads") {
    auto book = new_book();
    REQUIRE(book.create("web", "d"));
    auto rule = tcp_rule("22");
    rule.rule.peer = net::GroupReference{(*book.find("default"))->id};
    REQUIRE(book.authorize("web", rule));
    const auto list = *book.create_list("offices", 5, blocks({"203.0.113.0/24", "2001:db8::/32"}));
    REQUIRE(book.create_list("unused", 5, blocks({"10.0.0.0/8"})));
    rule.rule.peer = net::PrefixListReference{list};
    REQUIRE(book.authorize("web", rule));
    VmRecord record;
    record.firewall.timeouts = {.tcp_established = 350, .udp_stream = 60, .udp = 45};
    record.firewall.related_icmp_errors = false;
    record.firewall.private_name_answers = true;
    record.security_groups = {(*book.find("web"))->id, "sg-gone"};
    LiveVm member{.record = {},
                  .trouble = {},
                  .interfaces = {"net0"},
                  .addresses = {"10.0.0.7", "2001:db8::7"}};
    member.record.security_groups = {(*book.find("default"))->id};
    const auto text = boost::json::serialize(rule_document(book, record, {member}));
    auto body = api::JsonObject::parse(text, "rules");
    REQUIRE(body);
    const auto set = api::read_rule_set(*body);
    REQUIRE_MESSAGE(set, (set ? "" : set.error().message));
    CHECK(set->rules.rules.size() == 4);
    REQUIRE(set->rules.prefix_lists.size() == 1);
    CHECK(set->rules.prefix_lists.at(list).size() == 2);
    CHECK(set->rules.timeouts == record.firewall.timeouts);
    CHECK_FALSE(set->rules.related_icmp_errors);
    CHECK(set->rules.private_name_answers);
    CHECK(firewall_settings_from_json(to_json(record.firewall)) == record.firewall);
    CHECK(set->members.begin()->second.size() == 2);
    CHECK(net::compile(set->rules, set->members));
}

}  // namespace masu::cli

// Keeping security groups, and EC2's rules about rules.
#include "tools/masu/security_groups.hpp"

#include <algorithm>
#include <ctime>

#include "tools/masu/ec2_names.hpp"
#include "tools/masu/rule_text.hpp"

namespace masu::cli {
namespace {

bool says_the_same(const net::Rule& a, const net::Rule& b) {
    return a.direction == b.direction && a.protocol == b.protocol && a.from == b.from &&
           a.to == b.to && a.peer == b.peer;
}

// Groups, lists and names count in both families.
bool counts_in(const net::Rule& rule, net::Family family) {
    const auto* prefix = std::get_if<net::Prefix>(&rule.peer);
    return prefix == nullptr || prefix->address.family == family;
}

net::Rule everyone(net::Direction direction, net::Family family) {
    return {.id = {},
            .direction = direction,
            .peer = net::Prefix{
                family == net::Family::V4 ? net::Address::v4(0) : net::Address::v6(0, 0), 0}};
}

}  // namespace

Result<GroupBook> GroupBook::initial() {
    GroupBook book;
    SecurityGroup group{.id = TRY(new_ec2_id("sg")),
                        .name = std::string(default_name),
                        .description = "default VPC security group",
                        .created = static_cast<std::int64_t>(std::time(nullptr)),
                        .rules = {}};
    net::Rule from_itself{.id = {}, .peer = net::GroupReference{group.id}};
    for (auto rule : {from_itself, everyone(net::Direction::Egress, net::Family::V4),
                      everyone(net::Direction::Egress, net::Family::V6)}) {
        rule.id = TRY(new_ec2_id("sgr"));
        group.rules.push_back({std::move(rule), {}});
    }
    book.groups_.push_back(std::move(group));
    return book;
}

Result<const SecurityGroup*> GroupBook::find(std::string_view name) const {
    const auto found = std::ranges::find_if(groups_, [&](const SecurityGroup& group) {
        return name.starts_with("sg-") ? group.id == name : group.name == name;
    });
    if (found == groups_.end())
        return fail(
            "InvalidGroup.NotFound: there is no security group \"{}\"; `masu sg ls` shows "
            "those there are",
            name);
    return &*found;
}

Result<SecurityGroup*> GroupBook::find_mutable(std::string_view name) {
    const auto* group = TRY(find(name));
    return &groups_[static_cast<std::size_t>(group - groups_.data())];
}

Result<std::string> GroupBook::create(std::string name, std::string description) {
    while (name.ends_with(' '))
        name.pop_back();
    if (name.empty() || name.starts_with("sg-"))
        return fail("InvalidParameterValue: a group's name must not be empty nor begin with sg-");
    if (description.empty())
        return fail("MissingParameter: a security group needs a description; give --description");
    TRY(check_ec2_text("name", name));
    TRY(check_ec2_text("description", description));
    if (std::ranges::find(groups_, name, &SecurityGroup::name) != groups_.end())
        return fail("InvalidGroup.Duplicate: there is a security group \"{}\" already", name);
    if (groups_.size() >= max_groups)
        return fail("SecurityGroupLimitExceeded: there are {} security groups, which is the limit",
                    max_groups);
    SecurityGroup group{.id = TRY(new_ec2_id("sg")),
                        .name = std::move(name),
                        .description = std::move(description),
                        .created = static_cast<std::int64_t>(std::time(nullptr)),
                        .rules = {}};
    for (const auto family : {net::Family::V4, net::Family::V6}) {
        auto rule = everyone(net::Direction::Egress, family);
        rule.id = TRY(new_ec2_id("sgr"));
        group.rules.push_back({std::move(rule), {}});
    }
    groups_.push_back(std::move(group));
    return groups_.back().id;
}

std::size_t GroupBook::weight(const net::Rule& rule) const {
    const auto* reference = std::get_if<net::PrefixListReference>(&rule.peer);
    if (reference == nullptr)
        return 1;
    const auto list = find_list(reference->list_id);
    return list ? (*list)->max_entries : 1;
}

Result<std::string> GroupBook::authorize(std::string_view name, GroupRule added) {
    auto* group = TRY(find_mutable(name));
    TRY(check_ec2_text("description", added.description));
    for (const auto& [rule, description] : group->rules)
        if (says_the_same(rule, added.rule))
            return fail("InvalidPermission.Duplicate: group {} has the rule \"{}\" already ({})",
                        group->name, describe(rule), rule.id);
    for (const auto family : {net::Family::V4, net::Family::V6}) {
        if (!counts_in(added.rule, family))
            continue;
        auto count = weight(added.rule);
        for (const auto& entry : group->rules)
            if (entry.rule.direction == added.rule.direction && counts_in(entry.rule, family))
                count += weight(entry.rule);
        if (count > max_rules)
            return fail(
                "RulesPerSecurityGroupLimitExceeded: group {} would have {} {} rules for {}, and "
                "{} is the limit (a prefix list counts as its --max-entries)",
                group->name, count,
                added.rule.direction == net::Direction::Egress ? "egress" : "ingress",
                family == net::Family::V4 ? "IPv4" : "IPv6", max_rules);
    }
    added.rule.id = TRY(new_ec2_id("sgr"));
    group->rules.push_back(std::move(added));
    return group->rules.back().rule.id;
}

Result<> GroupBook::revoke(std::string_view name, const net::Rule& rule) {
    auto* group = TRY(find_mutable(name));
    const auto gone = std::erase_if(
        group->rules, [&](const GroupRule& entry) { return says_the_same(entry.rule, rule); });
    if (gone == 0)
        return fail(
            "InvalidPermission.NotFound: group {} has no rule \"{}\"; `masu sg inspect {}` "
            "shows its rules",
            group->name, describe(rule), group->name);
    return {};
}

Result<> GroupBook::revoke_id(std::string_view name, std::string_view rule_id) {
    auto* group = TRY(find_mutable(name));
    const auto gone = std::erase_if(
        group->rules, [&](const GroupRule& entry) { return entry.rule.id == rule_id; });
    if (gone == 0)
        return fail(
            "InvalidSecurityGroupRuleId.NotFound: group {} has no rule {}; `masu sg inspect "
            "{}` shows its rules",
            group->name, rule_id, group->name);
    return {};
}

Result<> GroupBook::remove(std::string_view name) {
    const auto* group = TRY(find(name));
    if (group->name == default_name)
        return fail("CannotDelete: the group \"default\" is always there");
    for (const auto& other : groups_)
        for (const auto& [rule, description] : other.rules)
            if (&other != group && rule.peer == net::Peer(net::GroupReference{group->id}))
                return fail(
                    "DependencyViolation: rule {} of group {} refers to group {}; revoke it "
                    "first",
                    rule.id, other.name, group->name);
    groups_.erase(groups_.begin() + (group - groups_.data()));
    return {};
}

}  // namespace masu::cli

// Keeping security groups, and EC2's rules about rules.
#include "tools/masu/security_groups.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <ctime>

#include <boost/json.hpp>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "base/fd.hpp"
#include "tools/masu/state.hpp"
#include "vmm/api/rule_set_body.hpp"

namespace masu::cli {
namespace {

namespace json = boost::json;

constexpr std::size_t document_limit = 64 * MiB;
constexpr std::size_t max_text = 255;

Result<std::string> new_id(std::string_view kind) {
    std::uint64_t value = 0;
    if (::getrandom(&value, sizeof value, 0) != sizeof value)
        return fail_errno(errno, "cannot get random bytes");
    return fmt::format("{}-0{:016x}", kind, value);
}

bool is_ec2_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view(" ._-:/()#,@[]+=&;{}!$*").contains(c);
}

Result<> check_text(std::string_view what, std::string_view text) {
    if (text.size() > max_text || !std::ranges::all_of(text, is_ec2_character))
        return fail(
            "InvalidParameterValue: the {} may have {} characters at most, of a-z, A-Z, "
            "0-9, blanks and ._-:/()#,@[]+=&;{{}}!$*",
            what, max_text);
    return {};
}

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

std::string text_at(const json::object& object, std::string_view key) {
    return std::string(object.at(key).as_string());
}

Result<net::Rule> rule_from(const json::object& object) {
    net::Rule rule{.id = text_at(object, "id")};
    const auto direction = text_at(object, "direction");
    rule.direction = direction == "egress" ? net::Direction::Egress : net::Direction::Ingress;
    rule.protocol = TRY(api::parse_protocol(text_at(object, "protocol")));
    if (const auto* from = object.if_contains("from_port"))
        rule.from = from->to_number<int>();
    if (const auto* to = object.if_contains("to_port"))
        rule.to = to->to_number<int>();
    if (object.contains("cidr"))
        rule.peer = TRY(net::parse_cidr(text_at(object, "cidr")));
    else if (object.contains("group"))
        rule.peer = net::GroupReference{text_at(object, "group")};
    else if (object.contains("prefix_list"))
        rule.peer = net::PrefixListReference{text_at(object, "prefix_list")};
    else
        rule.peer = net::DnsName{text_at(object, "name")};
    return rule;
}

Result<SecurityGroup> group_from(const json::object& object) {
    SecurityGroup group{.id = text_at(object, "id"),
                        .name = text_at(object, "name"),
                        .description = text_at(object, "description"),
                        .created = object.at("created").to_number<std::int64_t>(),
                        .rules = {}};
    for (const auto& entry : object.at("rules").as_array()) {
        const auto& rule = entry.as_object();
        group.rules.push_back({TRY(rule_from(rule)), text_at(rule, "description")});
    }
    return group;
}

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

json::object to_json(const net::Rule& rule) {
    json::object object{
        {"id", rule.id},
        {"direction", rule.direction == net::Direction::Egress ? "egress" : "ingress"},
        {"protocol", api::protocol_text(rule.protocol)}};
    if (rule.from != net::Rule::any)
        object["from_port"] = rule.from;
    if (rule.to != net::Rule::any)
        object["to_port"] = rule.to;
    if (const auto* prefix = std::get_if<net::Prefix>(&rule.peer))
        object["cidr"] = to_string(*prefix);
    else if (const auto* group = std::get_if<net::GroupReference>(&rule.peer))
        object["group"] = group->group_id;
    else if (const auto* list = std::get_if<net::PrefixListReference>(&rule.peer))
        object["prefix_list"] = list->list_id;
    else
        object["name"] = std::get<net::DnsName>(rule.peer).name;
    return object;
}

json::object to_json(const SecurityGroup& group) {
    json::array rules;
    for (const auto& [rule, description] : group.rules) {
        auto object = to_json(rule);
        object["description"] = description;
        rules.push_back(std::move(object));
    }
    return {{"id", group.id},
            {"name", group.name},
            {"description", group.description},
            {"created", group.created},
            {"rules", std::move(rules)}};
}

Result<GroupBook> GroupBook::initial() {
    GroupBook book;
    SecurityGroup group{.id = TRY(new_id("sg")),
                        .name = std::string(default_name),
                        .description = "default VPC security group",
                        .created = static_cast<std::int64_t>(std::time(nullptr)),
                        .rules = {}};
    net::Rule from_itself{.id = {}, .peer = net::GroupReference{group.id}};
    for (auto rule : {from_itself, everyone(net::Direction::Egress, net::Family::V4),
                      everyone(net::Direction::Egress, net::Family::V6)}) {
        rule.id = TRY(new_id("sgr"));
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
    TRY(check_text("name", name));
    TRY(check_text("description", description));
    if (std::ranges::find(groups_, name, &SecurityGroup::name) != groups_.end())
        return fail("InvalidGroup.Duplicate: there is a security group \"{}\" already", name);
    if (groups_.size() >= max_groups)
        return fail("SecurityGroupLimitExceeded: there are {} security groups, which is the limit",
                    max_groups);
    SecurityGroup group{.id = TRY(new_id("sg")),
                        .name = std::move(name),
                        .description = std::move(description),
                        .created = static_cast<std::int64_t>(std::time(nullptr)),
                        .rules = {}};
    for (const auto family : {net::Family::V4, net::Family::V6}) {
        auto rule = everyone(net::Direction::Egress, family);
        rule.id = TRY(new_id("sgr"));
        group.rules.push_back({std::move(rule), {}});
    }
    groups_.push_back(std::move(group));
    return groups_.back().id;
}

Result<std::string> GroupBook::authorize(std::string_view name, GroupRule added) {
    auto* group = TRY(find_mutable(name));
    TRY(check_text("description", added.description));
    for (const auto& [rule, description] : group->rules)
        if (says_the_same(rule, added.rule))
            return fail("InvalidPermission.Duplicate: group {} has the rule \"{}\" already ({})",
                        group->name, describe(rule), rule.id);
    for (const auto family : {net::Family::V4, net::Family::V6}) {
        if (!counts_in(added.rule, family))
            continue;
        const auto count = std::ranges::count_if(group->rules, [&](const GroupRule& entry) {
            return entry.rule.direction == added.rule.direction && counts_in(entry.rule, family);
        });
        if (static_cast<std::size_t>(count) >= max_rules)
            return fail(
                "RulesPerSecurityGroupLimitExceeded: group {} has {} {} rules for {}, which "
                "is the limit",
                group->name, max_rules,
                added.rule.direction == net::Direction::Egress ? "egress" : "ingress",
                family == net::Family::V4 ? "IPv4" : "IPv6");
    }
    added.rule.id = TRY(new_id("sgr"));
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

json::object GroupBook::to_json() const {
    json::array groups;
    for (const auto& group : groups_)
        groups.push_back(cli::to_json(group));
    return {{"version", 1}, {"groups", std::move(groups)}};
}

Result<GroupBook> GroupBook::parse(const std::string& text, const std::string& path) {
    GroupBook book;
    try {
        const auto document = json::parse(text);
        for (const auto& entry : document.as_object().at("groups").as_array()) {
            auto group = group_from(entry.as_object());
            if (!group)
                return in_context(path, std::move(group.error()));
            book.groups_.push_back(*std::move(group));
        }
    } catch (const std::exception& error) {
        return fail("{} cannot be read ({}); mend it, or move it away to begin anew", path,
                    error.what());
    }
    return book;
}

Result<GroupBook> GroupStore::read() const {
    const auto path = folder_ + "/security-groups.json";
    const auto text = read_file(path, document_limit);
    if (text)
        return GroupBook::parse(*text, path);
    if (text.error().os_errno != ENOENT)
        return std::unexpected(text.error());
    // The first reader makes the group "default", so that its id is the same for all.
    TRY(change([](GroupBook&) -> Result<> { return {}; }));
    return GroupBook::parse(TRY(read_file(path, document_limit)), path);
}

Result<Fd> GroupStore::take_lock() const {
    const auto path = folder_ + "/security-groups.lock";
    TRY(make_folder(folder_));
    Fd lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!lock)
        return fail_errno(errno, "cannot open {}", path);
    while (::flock(lock.get(), LOCK_EX) < 0)
        if (errno != EINTR)
            return fail_errno(errno, "cannot lock {}", path);
    return lock;
}

Result<> GroupStore::publish(const std::function<Result<>(const GroupBook&)>& publish) const {
    const auto lock = TRY(take_lock());
    const auto path = folder_ + "/security-groups.json";
    const auto text = TRY(read_file(path, document_limit));
    return publish(TRY(GroupBook::parse(text, path)));
}

Result<> GroupStore::change(const std::function<Result<>(GroupBook&)>& change,
                            const std::function<Result<>(const GroupBook&)>& publish) const {
    const auto lock = TRY(take_lock());
    const auto path = folder_ + "/security-groups.json";
    const auto text = read_file(path, document_limit);
    if (!text && text.error().os_errno != ENOENT)
        return std::unexpected(text.error());
    auto book = TRY(text ? GroupBook::parse(*text, path) : GroupBook::initial());
    TRY(change(book));
    TRY(write_file_atomically(path, json::serialize(book.to_json()) + "\n"));
    return publish ? publish(book) : Result<>();
}

}  // namespace masu::cli

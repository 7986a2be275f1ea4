// Security groups and prefix lists as JSON, as they are stored and shown.
#include <boost/json.hpp>

#include "tools/masu/security_groups.hpp"
#include "vmm/api/rule_set_body.hpp"

namespace masu::cli {
namespace {

namespace json = boost::json;

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

Result<PrefixList> list_from(const json::object& object) {
    PrefixList list{.id = text_at(object, "id"),
                    .name = text_at(object, "name"),
                    .max_entries = object.at("max_entries").to_number<std::size_t>(),
                    .created = object.at("created").to_number<std::int64_t>(),
                    .entries = {}};
    for (const auto& entry : object.at("entries").as_array())
        list.entries.push_back({TRY(net::parse_cidr(text_at(entry.as_object(), "cidr"))),
                                text_at(entry.as_object(), "description")});
    return list;
}

}  // namespace

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

json::object to_json(const PrefixList& list) {
    json::array entries;
    for (const auto& [prefix, description] : list.entries)
        entries.push_back(json::object{{"cidr", to_string(prefix)}, {"description", description}});
    return {{"id", list.id},
            {"name", list.name},
            {"max_entries", list.max_entries},
            {"created", list.created},
            {"entries", std::move(entries)}};
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

json::object GroupBook::to_json() const {
    json::array groups;
    for (const auto& group : groups_)
        groups.push_back(cli::to_json(group));
    json::array lists;
    for (const auto& list : lists_)
        lists.push_back(cli::to_json(list));
    return {{"version", 1}, {"groups", std::move(groups)}, {"prefix_lists", std::move(lists)}};
}

Result<GroupBook> GroupBook::parse(const std::string& text, const std::string& path) {
    GroupBook book;
    try {
        const auto document = json::parse(text);
        if (const auto* lists = document.as_object().if_contains("prefix_lists"))
            for (const auto& entry : lists->as_array()) {
                auto list = list_from(entry.as_object());
                if (!list)
                    return in_context(path, std::move(list.error()));
                book.lists_.push_back(*std::move(list));
            }
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

}  // namespace masu::cli

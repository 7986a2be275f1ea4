// Prefix lists: names for sets of address blocks, which rules refer to.
#include <algorithm>
#include <ctime>

#include "tools/masu/ec2_names.hpp"
#include "tools/masu/security_groups.hpp"

namespace masu::cli {
namespace {

Result<> put_entries(PrefixList& list, std::vector<PrefixListEntry> entries) {
    for (auto& entry : entries) {
        TRY(check_ec2_text("description", entry.description));
        if (std::ranges::find(list.entries, entry.prefix, &PrefixListEntry::prefix) !=
            list.entries.end())
            return fail("InvalidParameterValue: prefix list {} holds {} already", list.name,
                        to_string(entry.prefix));
        if (list.entries.size() >= list.max_entries)
            return fail(
                "PrefixListMaxEntriesExceeded: prefix list {} has room for {} entries, as its "
                "--max-entries said",
                list.name, list.max_entries);
        list.entries.push_back(std::move(entry));
    }
    return {};
}

}  // namespace

Result<const PrefixList*> GroupBook::find_list(std::string_view name) const {
    const auto found = std::ranges::find_if(lists_, [&](const PrefixList& list) {
        return name.starts_with("pl-") ? list.id == name : list.name == name;
    });
    if (found == lists_.end())
        return fail(
            "InvalidPrefixListId.NotFound: there is no prefix list \"{}\"; `masu prefix-list ls` "
            "shows those there are",
            name);
    return &*found;
}

Result<std::string> GroupBook::create_list(std::string name, std::size_t max_entries,
                                           std::vector<PrefixListEntry> entries) {
    if (name.empty() || name.starts_with("pl-"))
        return fail(
            "InvalidParameterValue: a prefix list's name must not be empty nor begin with pl-");
    TRY(check_ec2_text("name", name));
    if (std::ranges::find(lists_, name, &PrefixList::name) != lists_.end())
        return fail("InvalidParameterValue: there is a prefix list \"{}\" already", name);
    if (lists_.size() >= max_lists)
        return fail("PrefixListLimitExceeded: there are {} prefix lists, which is the limit",
                    max_lists);
    PrefixList list{.id = TRY(new_ec2_id("pl")),
                    .name = std::move(name),
                    .max_entries = max_entries,
                    .created = static_cast<std::int64_t>(std::time(nullptr)),
                    .entries = {}};
    TRY(put_entries(list, std::move(entries)));
    lists_.push_back(std::move(list));
    return lists_.back().id;
}

Result<> GroupBook::add_entries(std::string_view name, std::vector<PrefixListEntry> entries) {
    const auto index = static_cast<std::size_t>(TRY(find_list(name)) - lists_.data());
    auto changed = lists_[index];
    TRY(put_entries(changed, std::move(entries)));
    lists_[index] = std::move(changed);
    return {};
}

Result<> GroupBook::remove_entries(std::string_view name,
                                   const std::vector<net::Prefix>& prefixes) {
    const auto index = static_cast<std::size_t>(TRY(find_list(name)) - lists_.data());
    auto changed = lists_[index];
    for (const auto& prefix : prefixes)
        if (std::erase_if(changed.entries, [&](const PrefixListEntry& entry) {
                return entry.prefix == prefix;
            }) == 0)
            return fail("InvalidParameterValue: prefix list {} does not hold {}", changed.name,
                        to_string(prefix));
    lists_[index] = std::move(changed);
    return {};
}

Result<> GroupBook::remove_list(std::string_view name) {
    const auto* list = TRY(find_list(name));
    for (const auto& group : groups_)
        for (const auto& [rule, description] : group.rules)
            if (rule.peer == net::Peer(net::PrefixListReference{list->id}))
                return fail(
                    "DependencyViolation: rule {} of group {} refers to prefix list {}; revoke it "
                    "first",
                    rule.id, group.name, list->name);
    lists_.erase(lists_.begin() + (list - lists_.data()));
    return {};
}

}  // namespace masu::cli

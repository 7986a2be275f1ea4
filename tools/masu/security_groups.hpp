// Security groups and prefix lists as the command line keeps them: one document in the state
// folder, replaced whole, changed by one command at a time. Words and limits are EC2's;
// docs/security-groups.md tells them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "devices/net/firewall/rules.hpp"

namespace masu::cli {

struct GroupRule {
    net::Rule rule;  // its references by id
    std::string description;
};

struct SecurityGroup {
    std::string id;  // "sg-..."
    std::string name;
    std::string description;
    std::int64_t created = 0;  // Unix time, seconds
    std::vector<GroupRule> rules;
};

struct PrefixListEntry {
    net::Prefix prefix;
    std::string description;
};

// Blocks of addresses, of both families if one likes, that rules name together.
struct PrefixList {
    std::string id;  // "pl-..."
    std::string name;
    std::size_t max_entries = 0;  // what it counts as among a group's rules
    std::int64_t created = 0;     // Unix time, seconds
    std::vector<PrefixListEntry> entries;
};

// Errors begin with EC2's name for them ("InvalidGroup.NotFound: ...").
class GroupBook {
  public:
    static constexpr std::size_t max_groups = 2500;
    static constexpr std::size_t max_rules = 60;  // each way and family
    static constexpr std::size_t max_attached = 5;
    static constexpr std::string_view default_name = "default";

    // What there is before anybody made anything: the group "default".
    [[nodiscard]] static Result<GroupBook> initial();

    [[nodiscard]] const std::vector<SecurityGroup>& groups() const { return groups_; }
    // By name, or by id where it begins with "sg-".
    [[nodiscard]] Result<const SecurityGroup*> find(std::string_view name) const;

    // An empty group but for egress open to everyone. Returns its id.
    [[nodiscard]] Result<std::string> create(std::string name, std::string description);
    // Fills in the rule's id, which it returns.
    [[nodiscard]] Result<std::string> authorize(std::string_view group, GroupRule rule);
    // The rule that says the same, whatever its id and description.
    [[nodiscard]] Result<> revoke(std::string_view group, const net::Rule& rule);
    [[nodiscard]] Result<> revoke_id(std::string_view group, std::string_view rule_id);
    // The caller has made sure that no VM is in it.
    [[nodiscard]] Result<> remove(std::string_view group);

    // prefix_lists.cpp
    static constexpr std::size_t max_lists = 100;
    static constexpr std::size_t max_list_entries = 1000;
    [[nodiscard]] const std::vector<PrefixList>& lists() const { return lists_; }
    // By name, or by id where it begins with "pl-".
    [[nodiscard]] Result<const PrefixList*> find_list(std::string_view name) const;
    // Returns its id.
    [[nodiscard]] Result<std::string> create_list(std::string name, std::size_t max_entries,
                                                  std::vector<PrefixListEntry> entries);
    // All of them or, on an error, none.
    [[nodiscard]] Result<> add_entries(std::string_view list, std::vector<PrefixListEntry> entries);
    [[nodiscard]] Result<> remove_entries(std::string_view list,
                                          const std::vector<net::Prefix>& prefixes);
    // Refused while a rule names it.
    [[nodiscard]] Result<> remove_list(std::string_view list);

    [[nodiscard]] boost::json::object to_json() const;
    [[nodiscard]] static Result<GroupBook> parse(const std::string& text, const std::string& path);

  private:
    [[nodiscard]] Result<SecurityGroup*> find_mutable(std::string_view name);
    [[nodiscard]] std::size_t weight(const net::Rule& rule) const;
    std::vector<SecurityGroup> groups_;
    std::vector<PrefixList> lists_;
};

// The document. Any process; writers wait for each other.
class GroupStore {
  public:
    explicit GroupStore(std::string state_folder) : folder_(std::move(state_folder)) {}

    [[nodiscard]] Result<GroupBook> read() const;
    // Reads, changes and replaces it, then calls `publish` with what now holds, all under the lock.
    // When `change` fails, nothing is written.
    [[nodiscard]] Result<> change(
        const std::function<Result<>(GroupBook&)>& change,
        const std::function<Result<>(const GroupBook&)>& publish = {}) const;

    // Calls `publish` with what holds, under the lock.
    [[nodiscard]] Result<> publish(const std::function<Result<>(const GroupBook&)>& publish) const;

  private:
    [[nodiscard]] Result<Fd> take_lock() const;
    std::string folder_;
};

[[nodiscard]] boost::json::object to_json(const SecurityGroup& group);
[[nodiscard]] boost::json::object to_json(const PrefixList& list);
[[nodiscard]] boost::json::object to_json(const net::Rule& rule);

}  // namespace masu::cli

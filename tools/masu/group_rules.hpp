// From security groups to what monitors enforce: who is in which group, and the rules each VM gets.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <boost/json/object.hpp>

#include "base/result.hpp"
#include "tools/masu/flow_log_options.hpp"
#include "tools/masu/security_groups.hpp"
#include "tools/masu/state.hpp"

namespace masu::cli {

// A VM with a running monitor.
struct LiveVm {
    VmRecord record;
    std::string trouble;                  // why the monitor did not answer, or empty
    std::vector<std::string> interfaces;  // ids
    std::vector<std::string> addresses;   // its own, on networks that it shares with other VMs
};
[[nodiscard]] Result<std::vector<LiveVm>> live_vms(const Store& store);

// The body of PUT /network-interfaces/{id}/security-groups for the VM of `record`: the union of its
// groups' rules, and the addresses of the members of the groups they refer to.
[[nodiscard]] boost::json::object rule_document(const GroupBook& book, const VmRecord& record,
                                                const std::vector<LiveVm>& all);

// Sends every running VM the rules that hold now. Goes on past a VM that refuses them; the error
// names those. The caller holds the lock on the groups (GroupStore::change), or a later change
// could be overtaken by an earlier one. A group that is gone matches nothing.
[[nodiscard]] Result<> push_rules(const Store& store, const GroupBook& book);

// Gives a VM that is about to start its rules; where it shares a network with others, they hear of
// the new member too. Takes the lock on the groups.
[[nodiscard]] Result<> join_groups(const Store& store, const VmRecord& record);

// Changes the stored groups and lists (GroupStore::change), and gives the running VMs their new
// rules at once. The exit status, 0.
[[nodiscard]] Result<int> change_and_push(const std::function<Result<>(GroupBook&)>& change);

// Has a VM that is about to start keep a flow log of each interface in its folder.
[[nodiscard]] Result<> start_flow_logs(const VmRecord& record, const VmFolder& folder,
                                       const FlowLogOptions& options);

// Names of the VMs in a group, running or not.
[[nodiscard]] Result<std::vector<std::string>> members_of(const Store& store,
                                                          const std::string& group_id);

// Ids of groups given by name or id: "default" when none is given. EC2's limit of 5 holds.
[[nodiscard]] Result<std::vector<std::string>> resolve_groups(
    const GroupBook& book, const std::vector<std::string>& names);

// Puts a VM into groups, or takes it out of them, in its record. At least one group stays. The
// caller holds the lock on the groups.
[[nodiscard]] Result<> change_membership(const Store& store, const GroupBook& book,
                                         const std::string& vm,
                                         const std::vector<std::string>& names, bool attach);

}  // namespace masu::cli

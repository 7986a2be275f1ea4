// Membership, and rules on their way to running monitors.
#include "tools/masu/group_rules.hpp"

#include <algorithm>
#include <map>

#include <boost/json.hpp>

#include "tools/masu/commands.hpp"
#include "tools/masu/monitor_client.hpp"

namespace masu::cli {
namespace {

namespace json = boost::json;

// A monitor that is loading a kernel or saving a snapshot answers when it is done.
constexpr int busy_ms = 15'000;

bool contains(const std::vector<std::string>& list, const std::string& text) {
    return std::ranges::find(list, text) != list.end();
}

// Interfaces are named by their place among those that the VM was given.
bool is_on_network(const VmRecord& record, std::string_view id) {
    for (std::size_t i = 0; i < record.nets.size(); ++i)
        if (id == fmt::format("net{}", i))
            return record.nets[i].kind == NetOption::Kind::Network;
    return false;
}

// Behind passt every VM has the same address in a network of its own; such an address says nothing
// to anybody else. A network's switch speaks as passt does, but its addresses are one VM's each.
void read_interface(const json::object& interface, LiveVm& vm) {
    const auto* id = interface.if_contains("iface_id");
    if (id == nullptr || !id->is_string())
        return;
    vm.interfaces.emplace_back(id->as_string());
    const auto* network = interface.if_contains("guest_network");
    const bool is_private =
        interface.contains("passt_fd") && !is_on_network(vm.record, vm.interfaces.back());
    if (is_private || network == nullptr || !network->is_object())
        return;
    for (const auto* key : {"address", "address6"}) {
        const auto* address = network->as_object().if_contains(key);
        if (address == nullptr || !address->is_string())
            continue;
        const std::string text(address->as_string());
        vm.addresses.push_back(text.substr(0, text.find('/')));
    }
}

Result<LiveVm> look(const VmRecord& record) {
    LiveVm vm{.record = record, .trouble = {}, .interfaces = {}, .addresses = {}};
    const MonitorClient client(record.api_socket(), record.name);
    const auto config = TRY(client.get("/vm/config", busy_ms));
    if (!config.is_object())
        return vm;
    const auto* interfaces = config.as_object().if_contains("network-interfaces");
    if (interfaces != nullptr && interfaces->is_array())
        for (const auto& interface : interfaces->as_array())
            if (interface.is_object())
                read_interface(interface.as_object(), vm);
    return vm;
}

std::map<std::string, json::array> addresses_by_group(const std::vector<LiveVm>& all) {
    std::map<std::string, json::array> members;
    for (const auto& vm : all)
        for (const auto& address : vm.addresses)
            for (const auto& group : vm.record.security_groups)
                members[group].emplace_back(address);
    return members;
}

// A port that `masu run -p` publishes was asked for by name: no group need open it.
json::array published_rules(const VmRecord& record) {
    json::array rules;
    for (const auto& port : record.ports)
        rules.push_back(json::object{{"id", fmt::format("published-{}", port.guest)},
                                     {"direction", "ingress"},
                                     {"protocol", port.udp ? "udp" : "tcp"},
                                     {"from_port", port.guest},
                                     {"to_port", port.guest},
                                     {"cidr", "0.0.0.0/0"}});
    return rules;
}

// Ports are published to the outside, through passt: on a network they need rules.
json::object without_published(json::object document) {
    json::array kept;
    for (const auto& rule : document.at("rules").as_array())
        if (!rule.at("id").as_string().starts_with("published-"))
            kept.push_back(rule);
    document["rules"] = std::move(kept);
    return document;
}

json::array cidrs_of(const PrefixList& list) {
    json::array cidrs;
    for (const auto& entry : list.entries)
        cidrs.emplace_back(to_string(entry.prefix));
    return cidrs;
}

Result<> push_to(const LiveVm& vm, const json::object& document) {
    if (!vm.trouble.empty())
        return fail("{}", vm.trouble);
    const MonitorClient client(vm.record.api_socket(), vm.record.name);
    for (const auto& id : vm.interfaces)
        TRY(client.put("/network-interfaces/" + id + "/security-groups",
                       is_on_network(vm.record, id) ? without_published(document) : document,
                       busy_ms));
    return {};
}

}  // namespace

Result<std::vector<LiveVm>> live_vms(const Store& store) {
    std::vector<LiveVm> vms;
    for (const auto& folder : TRY(store.all())) {
        const auto alive = folder.alive();
        const auto record = folder.record();
        if (!record || !alive || !*alive || record->pid == 0)
            continue;
        if (auto vm = look(*record))
            vms.push_back(*std::move(vm));
        else if (const auto still = folder.alive(); still && *still)
            vms.push_back({.record = *record,
                           .trouble = vm.error().message,
                           .interfaces = {},
                           .addresses = {}});
    }
    return vms;
}

json::object rule_document(const GroupBook& book, const VmRecord& record,
                           const std::vector<LiveVm>& all) {
    auto rules = published_rules(record);
    const auto known = addresses_by_group(all);
    std::map<std::string, json::array> referred;
    std::map<std::string, json::array> lists;
    for (const auto& id : record.security_groups) {
        const auto group = book.find(id);
        if (!group)
            continue;
        for (const auto& [rule, description] : (*group)->rules) {
            rules.push_back(to_json(rule));
            if (const auto* peer = std::get_if<net::GroupReference>(&rule.peer))
                if (const auto found = known.find(peer->group_id); found != known.end())
                    referred.insert(*found);
            if (const auto* peer = std::get_if<net::PrefixListReference>(&rule.peer))
                if (const auto list = book.find_list(peer->list_id))
                    lists.emplace(peer->list_id, cidrs_of(**list));
        }
    }
    json::array members;
    for (auto& [group, addresses] : referred)
        members.push_back(json::object{{"group", group}, {"addresses", std::move(addresses)}});
    auto document = to_json(record.firewall);
    document["security_groups"] =
        json::array(record.security_groups.begin(), record.security_groups.end());
    document["rules"] = std::move(rules);
    document["members"] = std::move(members);
    json::array prefix_lists;
    for (auto& [id, cidrs] : lists)
        prefix_lists.push_back(json::object{{"id", id}, {"cidrs", std::move(cidrs)}});
    document["prefix_lists"] = std::move(prefix_lists);
    return document;
}

Result<int> change_and_push(const std::function<Result<>(GroupBook&)>& change) {
    const auto store = TRY(open_store());
    const GroupStore groups(store.places().state);
    TRY(groups.change(change, [&](const GroupBook& book) { return push_rules(store, book); }));
    return 0;
}

Result<> push_rules(const Store& store, const GroupBook& book) {
    const auto all = TRY(live_vms(store));
    std::string failed;
    for (const auto& vm : all)
        if (const auto told = push_to(vm, rule_document(book, vm.record, all)); !told)
            failed += fmt::format("{}{} ({})", failed.empty() ? "" : ", ", vm.record.name,
                                  told.error().message);
    if (!failed.empty())
        return fail("the change is stored, but these running VMs keep their old rules: {}", failed);
    return {};
}

Result<> join_groups(const Store& store, const VmRecord& record) {
    const auto vm = TRY(look(record));
    if (vm.interfaces.empty())
        return {};
    return GroupStore(store.places().state).publish([&](const GroupBook& book) -> Result<> {
        if (vm.addresses.empty())
            return push_to(vm, rule_document(book, record, {vm}));
        return push_rules(store, book);
    });
}

Result<> start_flow_logs(const VmRecord& record, const VmFolder& folder,
                         const FlowLogOptions& options) {
    const auto vm = TRY(look(record));
    if (vm.interfaces.empty())
        return fail("--flow-logs: the VM has no network interface; see --net");
    const MonitorClient client(record.api_socket(), record.name);
    for (const auto& id : vm.interfaces) {
        json::object request{{"path", folder.flow_log(id)}};
        if (!options.format.empty())
            request["format"] = options.format;
        if (options.interval)
            request["interval"] = *options.interval;
        if (!record.account_id.empty())
            request["account_id"] = record.account_id;
        TRY(client.put("/network-interfaces/" + id + "/flow-log", request));
    }
    return {};
}

Result<std::vector<std::string>> members_of(const Store& store, const std::string& group_id) {
    std::vector<std::string> names;
    for (const auto& folder : TRY(store.all()))
        if (const auto record = folder.record();
            record && contains(record->security_groups, group_id))
            names.push_back(record->name);
    return names;
}

Result<std::vector<std::string>> resolve_groups(const GroupBook& book,
                                                const std::vector<std::string>& names) {
    std::vector<std::string> ids;
    if (names.empty())
        ids.push_back(TRY(book.find(GroupBook::default_name))->id);
    for (const auto& name : names)
        if (const auto& id = TRY(book.find(name))->id; !contains(ids, id))
            ids.push_back(id);
    if (ids.size() > GroupBook::max_attached)
        return fail(
            "SecurityGroupsPerInterfaceLimitExceeded: {} groups, but a VM can be in {} at "
            "most",
            ids.size(), GroupBook::max_attached);
    return ids;
}

Result<> change_membership(const Store& store, const GroupBook& book, const std::string& vm,
                           const std::vector<std::string>& names, bool attach) {
    const auto folder = TRY(store.find(vm));
    auto record = TRY(folder.record());
    for (const auto& name : names) {
        const auto& id = TRY(book.find(name))->id;
        if (attach && !contains(record.security_groups, id))
            record.security_groups.push_back(id);
        if (!attach && std::erase(record.security_groups, id) == 0)
            return fail("VM {} is not in group {}", vm, name);
    }
    if (record.security_groups.empty())
        return fail(
            "InvalidParameterValue: VM {} must stay in one group at least; attach another "
            "first",
            vm);
    record.security_groups = TRY(resolve_groups(book, record.security_groups));
    return folder.write(record);
}

}  // namespace masu::cli

#include "tools/masu/restored_network.hpp"

#include <algorithm>

#include <boost/json.hpp>

#include "tools/masu/group_rules.hpp"
#include "tools/masu/network_join.hpp"
#include "tools/masu/passt_process.hpp"
#include "tools/masu/vm_network.hpp"

namespace masu::cli {
namespace {

constexpr std::string_view number_mark = "{n}";
constexpr unsigned last_port = 65535;

// What the guest has read of its interface when it booted stays; what the option leaves out too.
Result<NetOption> chosen_net(const std::string& text, const NetOption& saved) {
    auto net = TRY(parse_net_option(text));
    if (net.kind == NetOption::Kind::None)
        return fail("--net none: the guest has this interface, and it cannot be taken away");
    if (net.mac || net.mtu || net.bandwidth || net.packets)
        return fail("--net {}: mac=, mtu=, bw= and pps= are those the interface was saved with",
                    text);
    net.mac = saved.mac;
    net.mtu = saved.mtu;
    net.bandwidth = saved.bandwidth;
    net.packets = saved.packets;
    if (!net.address && saved.kind == net.kind && saved.network == net.network) {
        net.address = saved.address;
        net.gateway = saved.gateway;
        net.dns = saved.dns;
    }
    return net;
}

// A clone is another machine: on a network it wishes for no address but one it is given by name,
// and what others know it by is the monitor's or the network's to choose.
void forget_identity(const NetOption& given, NetOption& net) {
    net.mac.reset();
    if (net.kind == NetOption::Kind::Network) {
        net.address = given.address;
        net.address6.reset();
    }
}

Result<> choose_nets(const std::vector<std::string>& texts, const RestoredAs& as,
                     VmRecord& record) {
    if (!texts.empty() && texts.size() != record.nets.size())
        return fail(
            "--net is given {} times, and the snapshot's machine has {} network interfaces: give "
            "one for each, or none",
            texts.size(), record.nets.size());
    for (std::size_t i = 0; i < record.nets.size(); ++i) {
        NetOption given;
        if (!texts.empty()) {
            const auto text = with_number(texts[i], as.number);
            given = TRY(parse_net_option(text));
            record.nets[i] = TRY(chosen_net(text, record.nets[i]));
        }
        if (as.clone)
            forget_identity(given, record.nets[i]);
    }
    return {};
}

// Several clones cannot have one port of the host: each next clone takes the next.
Result<> choose_ports(const std::vector<std::string>& texts, const RestoredAs& as,
                      VmRecord& record) {
    if (as.clone || !texts.empty())
        record.ports.clear();
    if (texts.size() == 1 && texts.front() == "none")
        return {};
    for (const auto& text : texts) {
        auto port = TRY(parse_published_port(text));
        const unsigned host = port.host + as.number - 1;
        if (host > last_port)
            return fail("-p {}: clone {} would have port {}, and {} is the last one", text,
                        as.number, host, last_port);
        port.host = static_cast<std::uint16_t>(host);
        record.ports.push_back(port);
    }
    const bool user = std::ranges::count(record.nets, NetOption::Kind::User, &NetOption::kind) > 0;
    if (user)
        return {};
    if (!texts.empty())
        return fail("-p publishes ports of --net user, and this VM has none");
    record.ports.clear();  // they went with the --net user it was saved with
    return {};
}

}  // namespace

std::string with_number(std::string text, unsigned number) {
    for (auto at = text.find(number_mark); at != std::string::npos; at = text.find(number_mark))
        text.replace(at, number_mark.size(), std::to_string(number));
    return text;
}

Result<> choose_restored_network(const RestoredNetworkOptions& options, const GroupBook& book,
                                 const RestoredAs& as, VmRecord& record) {
    TRY(choose_nets(options.nets, as, record));
    TRY(choose_ports(options.ports, as, record));
    const auto users = std::ranges::count(record.nets, NetOption::Kind::User, &NetOption::kind);
    if (users > 1)
        return fail("--net user is given twice; a VM can have one of them");
    if (users == 1 && !find_passt())
        return fail("--net user needs the program passt; install it (apt-get install passt)");
    TRY(check(options.flow_logs));
    if (options.flow_logs.on && record.nets.empty())
        return fail("--flow-logs: the snapshot's machine has no network interface");
    if (!options.security_groups.empty()) {
        record.security_groups = TRY(resolve_groups(book, options.security_groups));
        return {};
    }
    for (const auto& id : record.security_groups)
        if (!record.nets.empty() && !book.find(id))
            return fail(
                "the snapshot's machine is in security group {}, which is gone: give another with "
                "--security-group",
                id);
    return {};
}

Result<std::vector<NetworkPort>> start_restored_network(const Store& store, VmRecord& record,
                                                        const VmFolder& folder) {
    std::vector<NetworkPort> backends(record.nets.size());
    for (std::size_t i = 0; i < record.nets.size(); ++i) {
        if (record.nets[i].kind == NetOption::Kind::Network)
            backends[i] = TRY(join_network(NetworkStore(store), record, i));
        if (record.nets[i].kind == NetOption::Kind::User) {
            auto socket = start_passt(*find_passt(), record.ports, folder.file("passt.log"));
            if (!socket)
                return fail("{}{}", socket.error().message,
                            record.ports.empty()
                                ? ""
                                : "; a port that is taken already can be left out, or replaced, "
                                  "with -p");
            backends[i].descriptors.push_back(*std::move(socket));
        }
    }
    return backends;
}

boost::json::array network_overrides(const VmRecord& record,
                                     const std::vector<NetworkPort>& backends, bool given,
                                     const std::string& hostname) {
    boost::json::array overrides;
    for (std::size_t i = 0; i < record.nets.size(); ++i) {
        const auto& net = record.nets[i];
        boost::json::object change{{"iface_id", interface_id(i)}};
        if (net.kind == NetOption::Kind::User) {
            name_descriptors(backends[i], change);
            change["guest_network"] = user_guest_network(hostname);
        } else if (net.kind == NetOption::Kind::Network) {
            // The same as saved, when it comes back to the lease it had.
            name_descriptors(backends[i], change);
            change["network_mac"] = *net.mac;
            change["guest_network"] =
                interface_request(net, interface_id(i), hostname).at("guest_network");
        } else {
            change["host_dev_name"] = net.tap;
            if (given && net.address)
                change["guest_network"] =
                    interface_request(net, interface_id(i), hostname).at("guest_network");
        }
        overrides.push_back(std::move(change));
    }
    return overrides;
}

}  // namespace masu::cli

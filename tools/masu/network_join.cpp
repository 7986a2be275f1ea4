// A lease, then a port for it, under the networks' lock.
#include "tools/masu/network_join.hpp"

#include <boost/json.hpp>

#include "tools/masu/switch_client.hpp"

namespace masu::cli {

Result<NetworkPort> join_network(const NetworkStore& networks, VmRecord& record,
                                 std::size_t index) {
    auto& net = record.nets[index];
    std::optional<net::Address> wanted;
    if (net.address)
        wanted = TRY(net::parse_address(net.address->substr(0, net.address->find('/'))));
    NetworkPort port;
    const auto join = [&](NetworkRecord& network) -> Result<> {
        const auto lease =
            TRY(give_lease(network, wanted, record.name, record.id, fmt::format("net{}", index)));
        const auto& [mac, ipv4, ipv6] = lease.addresses;
        port.is_tap = network.driver == NetworkRecord::Driver::Bridge;
        port.descriptors = TRY(join_switch(networks, network, lease, record.cpus));
        net.mac = net::to_string(mac);
        net.address = fmt::format("{}/{}", net::to_string(ipv4), network.subnet.length);
        net.address6.reset();
        if (ipv6)
            net.address6 = fmt::format("{}/{}", net::to_string(*ipv6), network.subnet6->length);
        if (!net.mtu)
            net.mtu = network.mtu;
        return {};
    };
    TRY(networks.change(net.network, join));
    return port;
}

void name_descriptors(const NetworkPort& port, boost::json::object& request) {
    if (!port.is_tap) {
        request["passt_fd"] = port.descriptors.front().get();
        return;
    }
    boost::json::array queues;
    for (const auto& queue : port.descriptors)
        queues.emplace_back(queue.get());
    request["tap_fds"] = std::move(queues);
}

}  // namespace masu::cli

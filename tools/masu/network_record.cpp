// Subnets and leases: arithmetic on addresses, and JSON.
#include "tools/masu/network_record.hpp"

#include <algorithm>

#include <boost/json.hpp>

#include "tools/masu/passt_process.hpp"

namespace masu::cli {
namespace {

namespace json = boost::json;

constexpr unsigned shortest_subnet = 16;
constexpr unsigned longest_subnet = 28;
constexpr std::uint64_t reserved_at_begin = 4;

bool overlap(const net::Prefix& a, const net::Prefix& b) {
    return a.contains(b.first()) || b.contains(a.first());
}

std::uint64_t host_count(const net::Prefix& subnet) {
    return std::uint64_t{1} << (32 - subnet.length);
}

bool is_free(const NetworkRecord& network, const net::Address& address) {
    return std::ranges::none_of(
        network.leases, [&](const Lease& lease) { return lease.addresses.ipv4 == address; });
}

net::PortAddresses addresses_of(const NetworkRecord& network, const net::Address& ipv4) {
    net::PortAddresses addresses{.ipv4 = ipv4, .ipv6 = {}};
    addresses.mac = {0x06, network.mac_byte};
    for (unsigned i = 0; i < 4; ++i)
        addresses.mac[2 + i] = static_cast<std::uint8_t>(ipv4.low >> (24 - 8 * i));
    if (network.subnet6)
        addresses.ipv6 =
            net::Address::v6(network.subnet6->address.high, net::link_local_of(addresses.mac).low);
    return addresses;
}

Result<net::Address> check_wanted(const NetworkRecord& network, const net::Address& wanted) {
    const auto host = wanted.low - network.subnet.address.low;
    if (!network.subnet.contains(wanted) || host < reserved_at_begin ||
        host + 1 >= host_count(network.subnet))
        return fail("network {} gives out {} to {}, and {} is none of them", network.name,
                    net::to_string(net::Address::v4(static_cast<std::uint32_t>(
                        network.subnet.address.low + reserved_at_begin))),
                    net::to_string(net::Address::v4(static_cast<std::uint32_t>(
                        network.subnet.address.low + host_count(network.subnet) - 2))),
                    net::to_string(wanted));
    for (const auto& lease : network.leases)
        if (lease.addresses.ipv4 == wanted)
            return fail("{} of network {} is in use by VM {}", net::to_string(wanted), network.name,
                        lease.vm);
    return wanted;
}

Result<net::Address> next_free(NetworkRecord& network) {
    const auto first = reserved_at_begin;
    const auto end = host_count(network.subnet) - 1;
    for (std::uint64_t step = 1; step <= end - first; ++step) {
        const auto after = std::max(network.last_given, first - 1) - first + step;
        const auto host = first + after % (end - first);
        const auto address =
            net::Address::v4(static_cast<std::uint32_t>(network.subnet.address.low + host));
        if (is_free(network, address)) {
            network.last_given = host;
            return address;
        }
    }
    return fail(
        "network {} has no address left: all {} of {} are in use; end a VM, or make a larger "
        "network",
        network.name, end - first, net::to_string(network.subnet));
}

std::string text_at(const json::object& object, std::string_view key) {
    return std::string(object.at(key).as_string());
}

Result<Lease> lease_from(const json::object& object) {
    Lease lease{.vm = text_at(object, "vm"),
                .vm_id = text_at(object, "vm_id"),
                .interface = text_at(object, "interface"),
                .addresses = {}};
    lease.addresses.mac = TRY(net::parse_mac(text_at(object, "mac")));
    lease.addresses.ipv4 = TRY(net::parse_address(text_at(object, "address")));
    if (object.contains("address6"))
        lease.addresses.ipv6 = TRY(net::parse_address(text_at(object, "address6")));
    return lease;
}

Result<NetworkRecord> record_from(const json::object& object) {
    NetworkRecord network;
    network.name = text_at(object, "name");
    network.id = text_at(object, "id");
    network.created = object.at("created").to_number<std::int64_t>();
    const auto* driver = object.if_contains("driver");
    if (driver != nullptr && driver->as_string() == to_string(NetworkRecord::Driver::Bridge))
        network.driver = NetworkRecord::Driver::Bridge;
    network.subnet = TRY(parse_subnet(text_at(object, "subnet")));
    if (object.contains("subnet6"))
        network.subnet6 = TRY(parse_subnet6(text_at(object, "subnet6")));
    network.mtu = object.at("mtu").to_number<std::uint64_t>();
    network.mac_byte = object.at("mac_byte").to_number<std::uint8_t>();
    network.last_given = object.at("last_given").to_number<std::uint64_t>();
    for (const auto& lease : object.at("leases").as_array())
        network.leases.push_back(TRY(lease_from(lease.as_object())));
    return network;
}

}  // namespace

std::string_view to_string(NetworkRecord::Driver driver) noexcept {
    return driver == NetworkRecord::Driver::Bridge ? "bridge" : "switch";
}

Result<net::Prefix> parse_subnet(std::string_view text) {
    const auto prefix = net::parse_cidr(text);
    if (!prefix || prefix->address.family != net::Family::V4 || prefix->length < shortest_subnet ||
        prefix->length > longest_subnet)
        return fail("\"{}\" is not an IPv4 subnet of /{} to /{}, such as 10.1.0.0/24", text,
                    shortest_subnet, longest_subnet);
    const auto first = prefix->address.low >> 24;
    if (first == 0 || first == 127 || first >= 224 || prefix->address.low >> 16 == 0xa9fe)
        return fail("{} is not for hosts (this network, loopback, link-local, multicast)",
                    net::to_string(*prefix));
    return *prefix;
}

Result<net::Prefix> parse_subnet6(std::string_view text) {
    const auto prefix = net::parse_cidr(text);
    if (!prefix || prefix->address.family != net::Family::V6 || prefix->length != 64)
        return fail("\"{}\" is not an IPv6 subnet of /64, such as fd12:3456:789a:1::/64", text);
    if (prefix->address.is_multicast() || prefix->address.is_link_local_v6() ||
        prefix->address.high >> 61 == 0)
        return fail("{} is not for hosts (reserved, link-local or multicast)",
                    net::to_string(*prefix));
    return *prefix;
}

Result<> check_overlap(const NetworkRecord& added, std::span<const NetworkRecord> others) {
    const auto user =
        *net::parse_cidr(fmt::format("{}/{}", user_network::address, user_network::prefix_length));
    if (overlap(added.subnet, user))
        return fail(
            "{} overlaps {}, which every VM with --net user has for itself; choose another "
            "--subnet",
            net::to_string(added.subnet), net::to_string(user));
    for (const auto& other : others) {
        if (overlap(added.subnet, other.subnet))
            return fail("{} overlaps {}, the subnet of network {}; choose another --subnet",
                        net::to_string(added.subnet), net::to_string(other.subnet), other.name);
        if (added.subnet6 && other.subnet6 && overlap(*added.subnet6, *other.subnet6))
            return fail("{} is the subnet of network {} already; choose another --subnet6",
                        net::to_string(*added.subnet6), other.name);
    }
    return {};
}

Result<net::Prefix> free_subnet(std::span<const NetworkRecord> others) {
    for (std::uint32_t n = 0; n < 256; ++n) {
        const net::Prefix subnet{net::Address::v4(0x0ac9'0000U + (n << 8)), 24};
        if (std::ranges::none_of(
                others, [&](const NetworkRecord& other) { return overlap(subnet, other.subnet); }))
            return subnet;
    }
    return fail("all of 10.201.0.0/16 is in use by networks; give --subnet");
}

Result<Lease> give_lease(NetworkRecord& network, const std::optional<net::Address>& wanted,
                         std::string vm, std::string vm_id, std::string interface) {
    if (network.leases.size() >= net::SwitchTable::max_ports)
        return fail("network {} has {} interfaces, which is the limit", network.name,
                    network.leases.size());
    const auto address = TRY(wanted ? check_wanted(network, *wanted) : next_free(network));
    network.leases.push_back({.vm = std::move(vm),
                              .vm_id = std::move(vm_id),
                              .interface = std::move(interface),
                              .addresses = addresses_of(network, address)});
    return network.leases.back();
}

json::object to_json(const NetworkRecord& network) {
    json::array leases;
    for (const auto& lease : network.leases) {
        json::object object{{"vm", lease.vm},
                            {"vm_id", lease.vm_id},
                            {"interface", lease.interface},
                            {"mac", net::to_string(lease.addresses.mac)},
                            {"address", net::to_string(lease.addresses.ipv4)}};
        if (lease.addresses.ipv6)
            object["address6"] = net::to_string(*lease.addresses.ipv6);
        leases.push_back(std::move(object));
    }
    json::object object{{"version", 1},
                        {"name", network.name},
                        {"id", network.id},
                        {"created", network.created},
                        {"driver", to_string(network.driver)},
                        {"subnet", net::to_string(network.subnet)}};
    if (network.subnet6)
        object["subnet6"] = net::to_string(*network.subnet6);
    object["mtu"] = network.mtu;
    object["mac_byte"] = network.mac_byte;
    object["last_given"] = network.last_given;
    object["leases"] = std::move(leases);
    return object;
}

Result<NetworkRecord> parse_network_record(const std::string& text, const std::string& path) {
    try {
        const auto document = json::parse(text);
        auto network = record_from(document.as_object());
        if (!network)
            return in_context(path, std::move(network.error()));
        return network;
    } catch (const std::exception& error) {
        return fail("{} cannot be read ({}); mend it, or move it away", path, error.what());
    }
}

}  // namespace masu::cli

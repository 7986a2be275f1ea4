// Addresses of a guest, put into the shapes that others need.
#include "vmm/net/guest_network.hpp"

#include <algorithm>
#include <string_view>

#include <fmt/format.h>
#include <xxhash.h>

namespace masu {
namespace {

using net::Address;
using net::Family;

// "172.31.0.10/20": the address as it stands, and the length.
Result<std::pair<Address, std::uint8_t>> split_cidr(const std::string& text) {
    const auto prefix = TRY(net::parse_cidr(text));
    return std::pair(TRY(net::parse_address(text.substr(0, text.find('/')))), prefix.length);
}

// Amazon's resolver: the subnet's base + 2, and the link-local ones.
bool is_provided_resolver(const Address& address, const net::ServiceConfig& services) {
    if (address == Address::v4(0xa9fea9fd) || address == Address::v6(0xfd00'0ec2'0000'0000, 0x253))
        return true;
    if (!services.ipv4 || address.family != Family::V4)
        return false;
    const auto base =
        net::Prefix::canonical(services.ipv4->address, services.ipv4->prefix_length).address;
    return address.low == base.low + 2;
}

// Amazon's resolvers are never filtered; others are, until rules name names.
void add_dns(const std::vector<Address>& servers, const net::ServiceConfig& services,
             net::InterfaceConfig& config) {
    for (const auto& server : servers)
        (is_provided_resolver(server, services) ? config.resolvers : config.name_servers)
            .push_back(server);
}

}  // namespace

std::vector<Address> ec2_metadata_addresses() {
    return {Address::v4(0xa9fea9fe), Address::v6(0xfd00'0ec2'0000'0000, 0x254)};
}

Result<net::ServiceConfig> service_config(const NetworkInterfaceConfig& config,
                                          const net::MacAddress& mac) {
    net::ServiceConfig services{.guest_mac = mac, .mtu = config.mtu};
    if (!config.guest_network)
        return services;
    const auto& network = *config.guest_network;
    services.hostname = network.hostname;
    const auto [address, length] = TRY(split_cidr(network.address));
    services.ipv4 = net::Ipv4Network{
        .address = address, .prefix_length = length, .local_gateway = network.local_gateway};
    if (network.gateway)
        services.ipv4->gateway = TRY(net::parse_address(*network.gateway));
    if (network.address6) {
        const auto [address6, length6] = TRY(split_cidr(*network.address6));
        services.ipv6 = net::Ipv6Network{.address = address6,
                                         .prefix_length = length6,
                                         .local_gateway = network.local_gateway6,
                                         .shared_link = network.shared_link};
        if (network.gateway6)
            services.ipv6->gateway = TRY(net::parse_address(*network.gateway6));
    }
    for (const auto& text : network.dns) {
        const auto server = TRY(net::parse_address(text));
        if (server.family == Family::V4)
            services.ipv4->dns.push_back(server);
        else if (services.ipv6)
            services.ipv6->dns.push_back(server);
    }
    return services;
}

net::InterfaceConfig firewall_config(const net::ServiceConfig& services) {
    net::InterfaceConfig config{.mac = services.guest_mac};
    config.local = services.metadata;
    config.time_servers = {Address::v4(0xa9fea97b), Address::v6(0xfd00'0ec2'0000'0000, 0x123)};
    config.source_dest_check = services.ipv4.has_value();
    config.dhcp_on_wire = !services.ipv4;
    if (services.ipv4) {
        config.addresses.push_back(services.ipv4->address);
        if (services.ipv4->local_gateway && services.ipv4->gateway)
            config.local.push_back(*services.ipv4->gateway);
        add_dns(services.ipv4->dns, services, config);
    }
    if (services.ipv6) {
        config.addresses.push_back(services.ipv6->address);
        // Where nobody else has the prefix, the guest may form any address from it.
        if (!services.ipv6->is_single())
            config.delegated.push_back(
                net::Prefix::canonical(services.ipv6->address, services.ipv6->prefix_length));
        config.router_discovery_on_wire = !services.ipv6->local_gateway;
        if (services.ipv6->gateway)
            (services.ipv6->local_gateway ? config.local : config.neighbors)
                .push_back(*services.ipv6->gateway);
        add_dns(services.ipv6->dns, services, config);
    }
    return config;
}

net::MacAddress mac_of_instance(std::string_view instance_id, std::string_view iface_id) {
    const auto key = fmt::format("{}/{}", instance_id, iface_id);
    const auto bits = XXH3_64bits_withSeed(key.data(), key.size(), 3);
    net::MacAddress mac{own_mac_prefix};
    for (std::size_t i = 1; i < mac.size(); ++i)
        mac[i] = static_cast<std::uint8_t>(bits >> (8 * i));
    return mac;
}

std::string ec2_uuid(std::string_view instance_id) {
    const auto first = XXH3_64bits_withSeed(instance_id.data(), instance_id.size(), 1);
    const auto second = XXH3_64bits_withSeed(instance_id.data(), instance_id.size(), 2);
    // Version 4, variant 1, as tools that look at UUIDs expect.
    return fmt::format("ec2{:05x}-{:04x}-4{:03x}-{:04x}-{:012x}", first & 0xfffff,
                       first >> 20 & 0xffff, first >> 36 & 0xfff, (second >> 48 & 0x3fff) | 0x8000,
                       second & 0xffff'ffff'ffffULL);
}

net::InstanceMetadata::Interface metadata_interface(const NetworkInterfaceConfig& config,
                                                    const net::MacAddress& mac) {
    net::InstanceMetadata::Interface interface{.mac = mac};
    if (!config.guest_network)
        return interface;
    const auto& network = *config.guest_network;
    if (const auto address = split_cidr(network.address)) {
        interface.ipv4 = address->first;
        interface.subnet4 = net::to_string(net::Prefix::canonical(address->first, address->second));
    }
    if (network.address6)
        if (const auto address = split_cidr(*network.address6)) {
            interface.ipv6 = address->first;
            interface.subnet6 =
                net::to_string(net::Prefix::canonical(address->first, address->second));
        }
    return interface;
}

}  // namespace masu

// What the monitor's services on one interface know about the guest and its network.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "devices/net/firewall/address.hpp"

namespace masu::net {

// The link address that the services answer with.
inline constexpr MacAddress service_mac{0x06, 0x01, 0x23, 0x45, 0x67, 0x01};

struct Ipv4Network {
    Address address;
    std::uint8_t prefix_length = 24;
    std::optional<Address> gateway;
    bool local_gateway = false;  // the services are the gateway's neighbour: ARP, ping
    std::vector<Address> dns;
};

struct Ipv6Network {
    Address address;
    std::uint8_t prefix_length = 64;
    std::optional<Address> gateway;  // link-local
    bool local_gateway = false;      // the services send its router advertisements
    bool shared_link = false;        // others have addresses of the prefix too; no default router
    std::vector<Address> dns;

    // Whether `address` is the only one that the guest may use beside link-local ones; else it may
    // form others of the prefix.
    [[nodiscard]] constexpr bool is_single() const noexcept {
        return shared_link || !local_gateway;
    }
};

struct ServiceConfig {
    MacAddress guest_mac{};
    std::optional<std::uint16_t> mtu;
    std::optional<std::string> hostname;
    std::optional<Ipv4Network> ipv4;  // DHCP is answered
    std::optional<Ipv6Network> ipv6;  // DHCPv6 is answered
    std::vector<Address> metadata;    // where the metadata service listens, on TCP port 80

    // Whether the services own this address: the metadata service's, and a local gateway's.
    [[nodiscard]] bool is_local(const Address& address) const noexcept;
    // Whether the guest, which looks if nobody has this address, must not take it.
    [[nodiscard]] bool is_refused(const Address& address) const noexcept;
};

}  // namespace masu::net

// A network of several VMs as it is kept: its subnets, and which VM has which address of them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

#include "base/result.hpp"
#include "devices/net/switch/switch_table.hpp"

namespace masu::cli {

// What one interface of one VM has of a network.
struct Lease {
    std::string vm;
    std::string vm_id;  // tells it from a later VM of that name
    std::string interface;
    net::PortAddresses addresses;
};

struct NetworkRecord {
    // Who carries frames from VM to VM: a process of masu's, or a bridge of the host's kernel.
    enum class Driver : std::uint8_t { Switch, Bridge };

    std::string name;
    std::string id;            // 16 hex digits
    std::int64_t created = 0;  // Unix time, seconds
    Driver driver = Driver::Switch;
    net::Prefix subnet;                  // IPv4, /16 to /28
    std::optional<net::Prefix> subnet6;  // IPv6, /64
    std::uint64_t mtu = 0;               // bytes
    std::uint8_t mac_byte = 0;           // the second of its MACs; 06:MAC_BYTE:IPv4
    std::uint64_t last_given = 0;        // host part of the address given last
    std::vector<Lease> leases;
};

// "switch" and "bridge".
[[nodiscard]] std::string_view to_string(NetworkRecord::Driver driver) noexcept;

// IPv4 of the length that a VPC's subnets have, and IPv6 of the one that hosts form addresses in
// by themselves. Host bits are cleared.
[[nodiscard]] Result<net::Prefix> parse_subnet(std::string_view text);
[[nodiscard]] Result<net::Prefix> parse_subnet6(std::string_view text);

// Refused when one of the subnets overlaps another network's, or that of `--net user`.
[[nodiscard]] Result<> check_overlap(const NetworkRecord& added,
                                     std::span<const NetworkRecord> others);
// The first 10.201.N.0/24 that no network has.
[[nodiscard]] Result<net::Prefix> free_subnet(std::span<const NetworkRecord> others);

// Gives an interface its address: `wanted`, or the next after the one given last, so that an
// address which was let go of is had again as late as can be. As in a VPC, the first four and the
// last of a subnet are nobody's. MAC and IPv6 address follow from the IPv4 address: the IPv6 one is
// what a guest forms by itself from the advertised prefix and its MAC (RFC 4862, RFC 4291 app. A).
[[nodiscard]] Result<Lease> give_lease(NetworkRecord& network,
                                       const std::optional<net::Address>& wanted, std::string vm,
                                       std::string vm_id, std::string interface);

[[nodiscard]] boost::json::object to_json(const NetworkRecord& network);
// `path` names the file in the error.
[[nodiscard]] Result<NetworkRecord> parse_network_record(const std::string& text,
                                                         const std::string& path);

}  // namespace masu::cli

// From the configuration of an interface to what the services, the firewall and the metadata
// service know about it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "devices/net/firewall/firewall.hpp"
#include "devices/net/metadata/instance.hpp"
#include "devices/net/services/service_config.hpp"
#include "vmm/config.hpp"

namespace masu {

// 169.254.169.254 and fd00:ec2::254.
[[nodiscard]] std::vector<net::Address> ec2_metadata_addresses();

// `config` has been checked. Without metadata addresses.
[[nodiscard]] Result<net::ServiceConfig> service_config(const NetworkInterfaceConfig& config,
                                                        const net::MacAddress& mac);

// What the firewall takes for the guest's own, and what it never filters. Without addresses (a TAP
// whose addresses somebody else gives out) the source and destination cannot be checked.
[[nodiscard]] net::InterfaceConfig firewall_config(const net::ServiceConfig& services);

[[nodiscard]] net::InstanceMetadata::Interface metadata_interface(
    const NetworkInterfaceConfig& config, const net::MacAddress& mac);

// The first byte of MACs that are made here: locally administered, as EC2's are.
inline constexpr std::uint8_t own_mac_prefix = 0x06;

// A locally administered MAC for an interface of an instance, always the same.
[[nodiscard]] net::MacAddress mac_of_instance(std::string_view instance_id,
                                              std::string_view iface_id);

// "ec2xxxxx-...": made from the instance's id, always the same.
[[nodiscard]] std::string ec2_uuid(std::string_view instance_id);

}  // namespace masu

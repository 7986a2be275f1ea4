// What a snapshot holds of the network beside virtio devices and configuration: of each interface
// its firewall's flows. The monitor's own services have nothing to save: DHCP always gives the same
// lease, and connections to the metadata service, with its session tokens, end with the monitor.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "devices/net/firewall/firewall.hpp"

namespace masu {

// More than the largest flow and name tables take.
inline constexpr std::size_t max_saved_firewall = 16 << 20;  // bytes

struct SavedInterface {
    std::string id;
    net::MacAddress mac{};
    std::optional<std::vector<std::byte>> firewall;  // Firewall::save(); absent: it had none
};

struct RestoredFirewall {
    std::string interface_id;
    std::unique_ptr<net::Firewall> firewall;  // with flows and without rules: nothing passes it
};

// The bytes may be anyone's: all of them are checked, before any interface is opened. Interfaces
// without a firewall are left out.
[[nodiscard]] Result<std::vector<RestoredFirewall>> restore_firewalls(
    const std::vector<SavedInterface>& interfaces, Nanoseconds now);

}  // namespace masu

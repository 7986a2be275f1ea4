#include "vmm/snapshot/load_changes.hpp"

#include <algorithm>

#include "vmm/net/guest_network.hpp"

namespace masu::snapshot {
namespace {

using Change = action::LoadSnapshot::Interface;

bool gives_backend(const Change& change) {
    return !change.host_dev_name.empty() || !change.tap_fds.empty() || change.passt_fd;
}

// Whether a guest that has configured itself by `before` must do so again.
bool differ(const std::optional<GuestNetworkConfig>& before, const GuestNetworkConfig& now) {
    return !before || before->address != now.address || before->gateway != now.gateway ||
           before->dns != now.dns || before->address6 != now.address6 ||
           before->gateway6 != now.gateway6;
}

// The descriptors in a saved configuration were the saving monitor's and mean nothing here.
Result<> set_backend(NetworkInterfaceConfig& interface, const Change* change) {
    interface.tap_fds.clear();
    interface.passt_fd.reset();
    if (change != nullptr && gives_backend(*change)) {
        interface.host_dev_name = change->host_dev_name;
        interface.tap_fds = change->tap_fds;
        interface.passt_fd = change->passt_fd;
    }
    if (interface.host_dev_name.empty() && interface.tap_fds.empty() && !interface.passt_fd)
        return fail(
            "the snapshot's interface {} had a descriptor for its backend: give it one here, in "
            "network_overrides (host_dev_name, tap_fds or passt_fd)",
            interface.iface_id);
    return {};
}

// The guest goes on with the MAC it has read. What the network knows it by stays too, unless this
// is another machine.
void set_network_mac(NetworkInterfaceConfig& interface, const Change* change,
                     const std::optional<action::LoadSnapshot::Identity>& identity) {
    if (change != nullptr && change->network_mac)
        interface.network_mac = change->network_mac;
    else if (identity)
        interface.network_mac =
            net::to_string(mac_of_instance(identity->instance_id, interface.iface_id));
}

NetworkInterfaceConfig* find_interface(std::vector<VmmAction>& config, const std::string& id) {
    for (auto& setting : config)
        if (auto* set = std::get_if<action::SetNetworkInterface>(&setting))
            if (set->interface.iface_id == id)
                return &set->interface;
    return nullptr;
}

// The socket of the one that was saved may be in use by it still.
Result<> move_vsock(std::vector<VmmAction>& config, const std::string& uds_path) {
    for (auto& setting : config)
        if (auto* set = std::get_if<action::SetVsock>(&setting)) {
            set->vsock.uds_path = uds_path;
            return {};
        }
    return fail("the snapshot's machine has no vsock; leave vsock_override out");
}

}  // namespace

Result<std::vector<std::string>> change_config(std::vector<VmmAction>& config,
                                               const action::LoadSnapshot& load) {
    std::vector<std::string> readdressed;
    for (const auto& change : load.interfaces) {
        if (find_interface(config, change.iface_id) == nullptr)
            return fail("the snapshot's machine has no network interface {}", change.iface_id);
        if (std::ranges::count(load.interfaces, change.iface_id, &Change::iface_id) > 1)
            return fail("network_overrides names interface {} twice", change.iface_id);
    }
    if (load.uds_path)
        TRY(move_vsock(config, *load.uds_path));
    for (auto& setting : config) {
        if (auto* metadata = std::get_if<action::SetInstanceMetadata>(&setting);
            metadata != nullptr && load.identity) {
            metadata->config.instance.instance_id = load.identity->instance_id;
            metadata->config.instance.hostname = load.identity->hostname;
        }
        auto* set = std::get_if<action::SetNetworkInterface>(&setting);
        if (set == nullptr)
            continue;
        auto& interface = set->interface;
        const auto found =
            std::ranges::find(load.interfaces, interface.iface_id, &Change::iface_id);
        const auto* change = found == load.interfaces.end() ? nullptr : &*found;
        TRY(set_backend(interface, change));
        set_network_mac(interface, change, load.identity);
        if (change != nullptr && change->guest_network) {
            if (differ(interface.guest_network, *change->guest_network))
                readdressed.push_back(interface.iface_id);
            interface.guest_network = change->guest_network;
        }
        if (load.identity && interface.guest_network)
            interface.guest_network->hostname = load.identity->hostname;
    }
    return readdressed;
}

bool change_drive(DriveConfig& drive, const action::LoadSnapshot& load) {
    const auto change =
        std::ranges::find(load.drives, drive.drive_id, &action::LoadSnapshot::Drive::drive_id);
    if (change == load.drives.end())
        return false;
    drive.path_on_host = change->path_on_host.value_or(drive.path_on_host);
    if (change->overlay_path)
        drive.overlay_path = change->overlay_path;
    return true;
}

}  // namespace masu::snapshot

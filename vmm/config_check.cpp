// Validation of configurations.
#include "vmm/config_check.hpp"

#include <algorithm>

#include "devices/net/firewall/address.hpp"
#include "devices/vsock/packet.hpp"

namespace masu {
namespace {

bool is_alphanumeric(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool is_printable(char c) {
    return c >= ' ' && c <= '~';
}

Result<> check_id(std::string_view what, std::string_view id, char also) {
    constexpr std::size_t longest = 64;
    const bool good = !id.empty() && id.size() <= longest && std::ranges::all_of(id, [&](char c) {
        return is_alphanumeric(c) || c == also;
    });
    if (!good)
        return fail("{} '{}' is not valid: use 1 to {} letters, digits and '{}'", what,
                    id.substr(0, longest), longest, also);
    return {};
}

Result<> check_path(std::string_view what, std::string_view path) {
    if (path.empty())
        return fail("{} is empty; give the path of a file", what);
    return {};
}

Result<> check_boot_args(const BootSource& source) {
    if (!source.boot_args)
        return {};
    if (source.boot_args->size() > max_boot_args)
        return fail(
            "the kernel command line (boot_args) has {} bytes, but a kernel takes {} at most",
            source.boot_args->size(), max_boot_args);
    if (!std::ranges::all_of(*source.boot_args,
                             [](char c) { return is_printable(c) || c == '\t'; }))
        return fail("boot_args holds a character that is not printable ASCII");
    return {};
}

Result<> check_firmware(const BootSource& source) {
    if (!source.kernel_image_path.empty() || source.initrd_path)
        return fail(
            "the firmware boots what the drives hold: with firmware, leave out kernel_image_path "
            "and initrd_path");
    if (source.boot_device > max_drives)
        return fail("boot_device is {}, but a VM has {} drives at most", source.boot_device,
                    max_drives);
    return check_boot_args(source);
}

Result<> check_served(const VmConfig& vm, std::string_view where,
                      const std::vector<std::string>& ids) {
    if (ids.empty())
        return fail("{}: network_interfaces is empty; name the interfaces that serve it", where);
    for (const auto& id : ids)
        if (std::ranges::find(vm.network_interfaces, id, &NetworkInterfaceConfig::iface_id) ==
            vm.network_interfaces.end())
            return fail("{}: there is no network interface '{}'; PUT it first", where, id);
    return {};
}

Result<> check(const GuestNetworkConfig& network, const std::string& id) {
    const auto subnet = net::parse_cidr(network.address);
    if (!subnet || subnet->address.family != net::Family::V4 || subnet->length > 30)
        return fail(
            "interface {}: guest_network.address '{}' is not an IPv4 address with a prefix "
            "length of 30 or less",
            id, network.address);
    if (network.gateway) {
        const auto gateway = net::parse_address(*network.gateway);
        if (!gateway || !subnet->contains(*gateway))
            return fail("interface {}: guest_network.gateway '{}' is not an address in {}", id,
                        *network.gateway, net::to_string(*subnet));
    } else if (network.local_gateway) {
        return fail("interface {}: guest_network.local_gateway needs a gateway", id);
    }
    if (network.dns.size() > max_dns_servers)
        return fail("interface {}: {} DNS servers at most", id, max_dns_servers);
    for (const auto& server : network.dns)
        if (!net::parse_address(server))
            return fail("interface {}: guest_network.dns '{}' is not an address", id, server);
    if (network.address6) {
        const auto subnet6 = net::parse_cidr(*network.address6);
        if (!subnet6 || subnet6->address.family != net::Family::V6)
            return fail(
                "interface {}: guest_network.address6 '{}' is not an IPv6 address with its "
                "prefix length",
                id, *network.address6);
    }
    if (network.gateway6) {
        const auto gateway = net::parse_address(*network.gateway6);
        if (!gateway || !gateway->is_link_local_v6())
            return fail("interface {}: guest_network.gateway6 '{}' is not a link-local address", id,
                        *network.gateway6);
    }
    if ((network.local_gateway6 || network.gateway6) && (!network.address6 || !network.gateway6))
        return fail("interface {}: guest_network needs address6 and gateway6 together", id);
    return {};
}

}  // namespace

Result<> check_drive_id(std::string_view id) {
    return check_id("drive id", id, '_');
}

Result<> check_interface_id(std::string_view id) {
    return check_id("interface id", id, '_');
}

Result<> check_instance_id(std::string_view id) {
    return check_id("instance id", id, '-');
}

Result<> check(const MachineConfig& machine) {
    if (machine.vcpu_count < 1 || machine.vcpu_count > max_vcpus)
        return fail("vcpu_count is {}, but must be 1 to {}", machine.vcpu_count, max_vcpus);
    if (machine.smt && machine.vcpu_count != 1 && machine.vcpu_count % 2 != 0)
        return fail("vcpu_count is {}, but must be 1 or even with smt", machine.vcpu_count);
    if (machine.mem_size_mib < min_mem_size_mib || machine.mem_size_mib > max_mem_size_mib)
        return fail("mem_size_mib is {}, but must be {} to {}", machine.mem_size_mib,
                    min_mem_size_mib, max_mem_size_mib);
    if (machine.huge_pages != HugePages::None && machine.mem_size_mib % 2 != 0)
        return fail("mem_size_mib is {}, but must be a multiple of 2 with huge pages",
                    machine.mem_size_mib);
    return {};
}

Result<> check(const BootSource& source) {
    if (source.firmware)
        return check_firmware(source);
    if (source.boot_menu || source.boot_device != 0)
        return fail("boot_menu and boot_device are the firmware's; say \"firmware\": true");
    TRY(check_path("kernel_image_path", source.kernel_image_path));
    if (source.initrd_path)
        TRY(check_path("initrd_path", *source.initrd_path));
    return check_boot_args(source);
}

Result<> check(const DriveConfig& drive) {
    TRY(check_drive_id(drive.drive_id));
    TRY(check_path(fmt::format("path_on_host of drive {}", drive.drive_id), drive.path_on_host));
    if (drive.partuuid && !drive.is_root_device)
        return fail("drive {}: partuuid is for the root device only", drive.drive_id);
    if (drive.partuuid && !std::ranges::all_of(*drive.partuuid, [](char c) {
            return is_alphanumeric(c) || c == '-';
        }))
        return fail("drive {}: partuuid '{}' is not a partition UUID", drive.drive_id,
                    *drive.partuuid);
    if (drive.overlay_path) {
        TRY(check_path(fmt::format("overlay_path of drive {}", drive.drive_id),
                       *drive.overlay_path));
        if (*drive.overlay_path == drive.path_on_host)
            return fail("drive {}: overlay_path and path_on_host are the same file",
                        drive.drive_id);
        if (drive.is_read_only)
            return fail("drive {}: a read-only drive needs no overlay; drop overlay_path",
                        drive.drive_id);
    }
    if (drive.overlay_size && !drive.overlay_path)
        return fail("drive {}: overlay_size is that of an overlay; give overlay_path too",
                    drive.drive_id);
    if (drive.serial && (drive.serial->empty() || drive.serial->size() > max_drive_serial ||
                         !std::ranges::all_of(*drive.serial, is_printable)))
        return fail("drive {}: serial must be 1 to {} printable characters", drive.drive_id,
                    max_drive_serial);
    return {};
}

Result<> check(const NetworkInterfaceConfig& interface) {
    TRY(check_interface_id(interface.iface_id));
    const auto backends = (interface.host_dev_name.empty() ? 0 : 1) +
                          (interface.tap_fds.empty() ? 0 : 1) + (interface.passt_fd ? 1 : 0);
    if (backends != 1)
        return fail("interface {}: give one of host_dev_name, tap_fds and passt_fd",
                    interface.iface_id);
    if (interface.guest_network)
        TRY(check(*interface.guest_network, interface.iface_id));
    if (interface.mtu && *interface.mtu < min_mtu)
        return fail("interface {}: mtu is {}, but must be {} to 65535", interface.iface_id,
                    *interface.mtu, min_mtu);
    return {};
}

Result<> check(const VsockConfig& vsock) {
    if (vsock.guest_cid < vsock::first_guest_cid || vsock.guest_cid == vsock::any_cid)
        return fail("vsock: guest_cid is {}, but must be {} to {}", vsock.guest_cid,
                    vsock::first_guest_cid, vsock::any_cid - 1);
    if (vsock.uds_path.empty() || vsock.uds_path.size() > max_uds_path)
        return fail("vsock: uds_path {} has {} bytes, but must have 1 to {}: use another folder",
                    vsock.uds_path, vsock.uds_path.size(), max_uds_path);
    return {};
}

Result<> check(const InstanceMetadataConfig& metadata, const VmConfig& vm) {
    if (vm.mmds)
        return fail("instance-metadata and mmds-config exclude each other; use one of them");
    TRY(check_served(vm, "instance-metadata", metadata.network_interfaces));
    if (metadata.hop_limit < 1 || metadata.hop_limit > 64)
        return fail("instance-metadata: hop_limit is {}, but must be 1 to 64", metadata.hop_limit);
    const auto& instance = metadata.instance;
    const auto digits = instance.instance_id.starts_with("i-")
                            ? std::string_view(instance.instance_id).substr(2)
                            : std::string_view();
    if (digits.empty() || digits.size() > 40 || !std::ranges::all_of(digits, is_alphanumeric))
        return fail(
            "instance-metadata: instance_id '{}' must be i- and up to 40 letters and digits",
            instance.instance_id.substr(0, 64));
    if (!net::is_account_id(instance.account_id))
        return fail("instance-metadata: account_id '{}' must be 12 digits",
                    instance.account_id.substr(0, 64));
    if (instance.user_data && instance.user_data->size() > max_user_data)
        return fail("instance-metadata: user_data has {} bytes, but may have {} at most",
                    instance.user_data->size(), max_user_data);
    if (instance.role.has_value() != instance.role_credentials.has_value())
        return fail("instance-metadata: an IAM role and its credentials go together");
    for (const auto* text : {&instance.instance_type, &instance.image_id, &instance.region,
                             &instance.availability_zone, &instance.hostname})
        if (text->size() > 128 || !std::ranges::all_of(*text, is_printable))
            return fail("instance-metadata: '{}' is too long, or not printable ASCII",
                        text->substr(0, 64));
    return {};
}

Result<> check(const MmdsConfig& mmds, const VmConfig& vm) {
    if (vm.metadata)
        return fail("mmds-config and instance-metadata exclude each other; use one of them");
    TRY(check_served(vm, "mmds-config", mmds.network_interfaces));
    const auto address = net::parse_address(mmds.ipv4_address);
    if (!address || address->family != net::Family::V4 || address->low >> 16 != 0xa9fe)
        return fail("mmds-config: ipv4_address '{}' is not in 169.254.0.0/16", mmds.ipv4_address);
    return {};
}

Result<> check_room(const VmConfig& vm, const NetworkInterfaceConfig& interface) {
    const auto& all = vm.network_interfaces;
    const bool replaces =
        std::ranges::find(all, interface.iface_id, &NetworkInterfaceConfig::iface_id) != all.end();
    if (!replaces && all.size() >= max_network_interfaces)
        return fail("interface {}: a VM can have {} interfaces at most", interface.iface_id,
                    max_network_interfaces);
    return {};
}

void insert_interface(VmConfig& vm, NetworkInterfaceConfig interface) {
    auto& all = vm.network_interfaces;
    const auto place =
        std::ranges::find(all, interface.iface_id, &NetworkInterfaceConfig::iface_id);
    if (place == all.end())
        all.push_back(std::move(interface));
    else
        *place = std::move(interface);
}

Result<> check(const VmConfig& vm) {
    TRY(check_instance_id(vm.id));
    TRY(check(vm.machine));
    if (!vm.boot_source)
        return fail(
            "nothing to boot is set; give a kernel through /boot-source, or {{\"firmware\": true}} "
            "to "
            "boot what the drives hold");
    TRY(check(*vm.boot_source));
    if (vm.boot_source->firmware && vm.transport != Transport::Pci)
        return fail("the firmware finds disks on PCI only: leave out --transport mmio");
    if (vm.boot_source->firmware && vm.drives.empty())
        return fail("the firmware has nothing to boot from: give a drive");
    if (vm.boot_source->boot_device > vm.drives.size())
        return fail("boot_device is {}, but there are {} drives", vm.boot_source->boot_device,
                    vm.drives.size());
    for (const auto& drive : vm.drives) {
        TRY(check(drive));
        const auto same_overlay = std::ranges::count_if(vm.drives, [&](const DriveConfig& other) {
            return drive.overlay_path && other.overlay_path == drive.overlay_path;
        });
        if (same_overlay > 1)
            return fail("drive {}: another drive has the same overlay_path {}", drive.drive_id,
                        *drive.overlay_path);
    }
    return {};
}

Result<> insert_drive(VmConfig& vm, DriveConfig drive) {
    const auto same_id = [&](const DriveConfig& other) { return other.drive_id == drive.drive_id; };
    const auto root = std::ranges::find_if(vm.drives, &DriveConfig::is_root_device);
    if (drive.is_root_device && root != vm.drives.end() && !same_id(*root))
        return fail("drive {}: {} is the root device already, and there can be one only",
                    drive.drive_id, root->drive_id);
    const auto place = std::ranges::find_if(vm.drives, same_id);
    if (place == vm.drives.end() && vm.drives.size() >= max_drives)
        return fail("drive {}: a VM can have {} drives at most", drive.drive_id, max_drives);
    if (place == vm.drives.end())
        vm.drives.push_back(std::move(drive));
    else
        *place = std::move(drive);
    const auto root_now = std::ranges::find_if(vm.drives, &DriveConfig::is_root_device);
    if (root_now != vm.drives.end())
        std::rotate(vm.drives.begin(), root_now, root_now + 1);
    return {};
}

}  // namespace masu

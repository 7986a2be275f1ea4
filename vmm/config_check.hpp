// Whether a configuration makes sense: the one place, whoever brings it.
#pragma once

#include <string_view>

#include "base/result.hpp"
#include "vmm/config.hpp"

namespace masu {

inline constexpr std::uint64_t min_mem_size_mib = 64;
inline constexpr std::uint64_t max_mem_size_mib = 1024 * 1024;
inline constexpr std::size_t max_drives = 24;
// What the monitor appends (root=, virtio-mmio windows) comes on top.
inline constexpr std::size_t max_boot_args = 2047;
inline constexpr std::size_t max_network_interfaces = 8;
inline constexpr std::size_t max_dns_servers = 3;
inline constexpr std::size_t max_user_data = 16384;
inline constexpr std::uint16_t min_mtu = 68;  // of IPv4
// With "_" and a port behind it, it is the path of a Unix socket (107 bytes) still.
inline constexpr std::size_t max_uds_path = 96;
inline constexpr std::size_t max_drive_serial = 20;  // VIRTIO_BLK_ID_BYTES

// Ids appear in paths of the API and in names of metrics: letters, digits and '_', at most 64.
[[nodiscard]] Result<> check_drive_id(std::string_view id);
[[nodiscard]] Result<> check_interface_id(std::string_view id);
// An instance id: letters, digits and '-', at most 64.
[[nodiscard]] Result<> check_instance_id(std::string_view id);

[[nodiscard]] Result<> check(const MachineConfig& machine);
[[nodiscard]] Result<> check(const BootSource& source);
[[nodiscard]] Result<> check(const DriveConfig& drive);
[[nodiscard]] Result<> check(const NetworkInterfaceConfig& interface);
[[nodiscard]] Result<> check(const VsockConfig& vsock);
// Before the start: the parts together.
[[nodiscard]] Result<> check(const VmConfig& vm);

// Puts `drive` in its place: where the drive of that id was, else at the end; a root device in
// front. Refuses a second root device and more than max_drives.
[[nodiscard]] Result<> insert_drive(VmConfig& vm, DriveConfig drive);

// The interfaces it names must be there.
[[nodiscard]] Result<> check(const MmdsConfig& mmds, const VmConfig& vm);
[[nodiscard]] Result<> check(const InstanceMetadataConfig& metadata, const VmConfig& vm);
// Whether one more interface fits, where `interface` does not replace one.
[[nodiscard]] Result<> check_room(const VmConfig& vm, const NetworkInterfaceConfig& interface);
void insert_interface(VmConfig& vm, NetworkInterfaceConfig interface);

}  // namespace masu

// struct virtio_pci_common_cfg (virtio 1.2, 4.1.4.3), by offset.
#pragma once

#include <cstdint>

namespace masu::firmware::virtio::common {

inline constexpr std::uint64_t device_feature_select = 0x00;
inline constexpr std::uint64_t device_feature = 0x04;
inline constexpr std::uint64_t driver_feature_select = 0x08;
inline constexpr std::uint64_t driver_feature = 0x0c;
inline constexpr std::uint64_t device_status = 0x14;
inline constexpr std::uint64_t queue_select = 0x16;
inline constexpr std::uint64_t queue_size = 0x18;
inline constexpr std::uint64_t queue_enable = 0x1c;
inline constexpr std::uint64_t queue_notify_off = 0x1e;
inline constexpr std::uint64_t queue_desc = 0x20;
inline constexpr std::uint64_t queue_driver = 0x28;
inline constexpr std::uint64_t queue_device = 0x30;

}  // namespace masu::firmware::virtio::common

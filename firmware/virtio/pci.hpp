// Virtio devices on the PCI bus (virtio 1.2, 4.1): found, reset, negotiated.
#pragma once

#include <cstdint>

namespace masu::firmware::virtio {

enum class DeviceType : std::uint16_t { Block = 0x1042, Entropy = 0x1044 };  // PCI device IDs

// Addresses of the structures of 4.1.4.
struct Device {
    std::uint8_t slot = 0;  // PCI device number, function 0
    std::uint64_t common = 0;
    std::uint64_t notify = 0;
    std::uint32_t notify_multiplier = 0;
    std::uint64_t config = 0;
};

void init_pci(std::uint64_t ecam) noexcept;
// The next virtio device of the type behind slot `from` (-1: from the start); false: no more.
[[nodiscard]] bool find_device(DeviceType type, int from, Device& device) noexcept;

// 3.1.1, steps 1 to 6: `wanted` features the device has are taken, VERSION_1 must be there.
[[nodiscard]] bool begin(const Device& device, std::uint64_t wanted, std::uint64_t& got) noexcept;
void driver_ok(const Device& device) noexcept;
void reset(const Device& device) noexcept;

}  // namespace masu::firmware::virtio

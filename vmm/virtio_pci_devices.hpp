// The virtio-pci kind of VirtioDevices.
#pragma once

#include "vmm/virtio_devices.hpp"

namespace masu {

[[nodiscard]] Result<std::unique_ptr<VirtioDevices>> make_virtio_pci_devices(VirtioHost host);

}  // namespace masu

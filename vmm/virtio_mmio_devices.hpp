// The virtio-mmio kind of VirtioDevices.
#pragma once

#include "vmm/virtio_devices.hpp"

namespace masu {

[[nodiscard]] std::unique_ptr<VirtioDevices> make_virtio_mmio_devices(VirtioHost host);

}  // namespace masu

// Chooses the transport.
#include "vmm/virtio_devices.hpp"

#include "vmm/virtio_mmio_devices.hpp"
#include "vmm/virtio_pci_devices.hpp"

namespace masu {

Result<std::unique_ptr<VirtioDevices>> VirtioDevices::create(VirtioHost host) {
    if (host.transport == Transport::Mmio)
        return make_virtio_mmio_devices(std::move(host));
    return make_virtio_pci_devices(std::move(host));
}

}  // namespace masu

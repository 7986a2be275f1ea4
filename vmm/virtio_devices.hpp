// The virtio devices of one machine, each behind the transport the configuration asks for.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "base/result.hpp"
#include "devices/bus.hpp"
#include "devices/legacy/ioapic.hpp"
#include "devices/pci/root.hpp"
#include "devices/virtio/device.hpp"
#include "devices/virtio/saved_state.hpp"
#include "vmm/acpi/tables.hpp"
#include "vmm/config.hpp"
#include "vmm/kvm/irq_routes.hpp"
#include "vmm/kvm/vm.hpp"

namespace masu {

// Where devices are attached; all of it is borrowed and outlives the VirtioDevices.
struct VirtioHost {
    Transport transport;
    const GuestMemory& memory;
    EventLoop& loop;
    Bus& ports;
    Bus& mmio;
    kvm::Vm& vm;
    kvm::IrqRoutes& routes;
    legacy::Ioapic& ioapic;
    Metrics& metrics;
    Log log;
};

// The virtio devices in a snapshot, by id, in the order they were attached. Of functions and
// windows only those of the transport in use.
struct SavedVirtioDevices {
    std::vector<std::pair<std::string, virtio::SavedPciFunction>> functions;
    pci::RootState root;
    std::vector<std::pair<std::string, virtio::SavedMmioWindow>> windows;
};

// Owns devices and transports. Set up on the loop's thread before the vCPUs run, destroyed after
// they stopped; destruction drains I/O.
class VirtioDevices {
  public:
    [[nodiscard]] static Result<std::unique_ptr<VirtioDevices>> create(VirtioHost host);
    virtual ~VirtioDevices() = default;

    // In the order the guest is to find them. `id` names the device in counters and logs.
    [[nodiscard]] virtual Result<> attach(const std::string& id,
                                          std::unique_ptr<virtio::Device> device) = 0;
    // Has KVM signal the queues' eventfds, so that a notification does not leave the kernel. Once,
    // after all devices and vCPUs are made.
    [[nodiscard]] virtual Result<> register_doorbells() = 0;
    // The vCPUs stand still. Every device comes to rest, and goes on afterwards.
    [[nodiscard]] virtual Result<SavedVirtioDevices> save() = 0;
    // In place of register_doorbells(), after the same devices have been attached as when saved.
    [[nodiscard]] virtual Result<> restore(const SavedVirtioDevices& saved) = 0;
    // virtio-mmio only: what the ACPI tables must announce.
    [[nodiscard]] virtual std::vector<acpi::VirtioMmioDevice> mmio_windows() const { return {}; }
};

// Whether the devices attached are those of the snapshot, one by one. A slot has an `id`.
template <class Slots, class Saved>
[[nodiscard]] Result<> check_same_devices(const Slots& slots, const Saved& saved) {
    if (slots.size() != saved.size())
        return fail("the snapshot has {} devices, and this machine {}", saved.size(), slots.size());
    for (std::size_t i = 0; i < slots.size(); ++i)
        if (slots[i].id != saved[i].first)
            return fail("device {} of the snapshot is '{}', and of this machine '{}'", i,
                        saved[i].first, slots[i].id);
    return {};
}

}  // namespace masu

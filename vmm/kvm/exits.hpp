// What happens when a vCPU leaves the guest: one function from KVM's report to the devices.
#pragma once

#include "vmm/kvm/kvm_abi.hpp"

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "base/metrics.hpp"
#include "devices/bus.hpp"
#include "vmm/stop_event.hpp"

namespace masu::kvm {

// Where exits go. Borrowed by every vCPU thread, which call it several at once.
struct ExitHandlers {
    const Bus& ports;
    const Bus& mmio;
    // The guest ended a level-triggered interrupt of this vector: for the IOAPIC.
    std::function<void(std::uint8_t vector)> ioapic_eoi;
    // The guest or KVM ended the machine. At most once for all vCPUs; on a vCPU thread, so it must
    // not wait for the vCPUs (post to the event loop).
    std::function<void(StopEvent)> stop;
};

// Counters of group "vcpu", one for each reason to leave the guest.
struct ExitCounters {
    explicit ExitCounters(Metrics& metrics);
    Counter &io_in, &io_out, &mmio_read, &mmio_write, &hlt, &shutdown, &system_event, &ioapic_eoi,
        &interrupted, &internal_error, &fail_entry, &other;
};

// Handles one return of KVM_RUN with result 0. `page` is the whole mapping that starts with `run`:
// port data lies in it. Nullopt: run on.
[[nodiscard]] std::optional<StopEvent> handle_exit(kvm_run& run, std::span<std::byte> page,
                                                   const ExitHandlers& handlers,
                                                   ExitCounters& counters);

}  // namespace masu::kvm

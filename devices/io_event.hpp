// How a device asks that a guest's write be turned into an eventfd signal without a trip to user
// space; implemented by vmm/ on KVM_IOEVENTFD and by fakes in tests.
#pragma once

#include <cstdint>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace masu {

// Thread-safe: called on whichever vCPU thread moved a BAR. May be costly (KVM waits for every
// vCPU), so callers add and remove only what really changed.
class IoEventRegistrar {
  public:
    virtual ~IoEventRegistrar() = default;
    // From now on a write of any width and value to the guest-physical MMIO address `address`
    // signals `event`, and reaches no BusDevice. `event` is borrowed until remove(). A failure
    // costs speed only: the write then arrives at the device on the mmio Bus.
    [[nodiscard]] virtual Result<> add(std::uint64_t address, const EventFd& event) = 0;
    // Undoes an add() that succeeded, with the same arguments.
    virtual void remove(std::uint64_t address, const EventFd& event) = 0;
};

}  // namespace masu

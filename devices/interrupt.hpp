// How a device asks for the guest's attention; implemented by vmm/ on KVM and by fakes in tests.
#pragma once

#include <cstdint>
#include <optional>

namespace masu {

// A message-signalled interrupt as PCI and the IOAPIC form it: a 32-bit write to an address in the
// LAPIC's window (Intel SDM vol. 3, 11.11).
struct MsiMessage {
    std::uint64_t address = 0;
    std::uint32_t data = 0;
    bool operator==(const MsiMessage&) const = default;
};

// A row of message-signalled interrupts, addressed by index: the vectors of one MSI-X table, or the
// pins of the IOAPIC. Thread-safe.
class MsiBank {
  public:
    virtual ~MsiBank() = default;
    // What signal(index) sends from now on; nullopt: nothing (masked). Cheap: an implementation may
    // put off the costly part until the next signal().
    virtual void route(unsigned index, std::optional<MsiMessage> message) = 0;
    // Sends the message of `index`. Never blocks. Without a route it does nothing: whoever masks
    // keeps the pending bit.
    virtual void signal(unsigned index) = 0;
};

// One input pin of the interrupt controller. Thread-safe.
class InterruptLine {
  public:
    virtual ~InterruptLine() = default;
    // The electrical level; true = asserted. For an edge-triggered pin the rising edge counts.
    virtual void set(bool asserted) = 0;
};

}  // namespace masu

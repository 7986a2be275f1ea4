// The register behind the ACPI generic event device: which events wait for the guest.
#pragma once

#include <atomic>
#include <cstdint>

#include "devices/bus.hpp"
#include "devices/interrupt.hpp"

namespace masu::legacy {

// Bits of the register; the DSDT's _EVT method turns each into a Notify.
enum class GedEvent : std::uint32_t {
    PowerButton = 1 << 0,
    VmGenerationId = 1 << 1,  // the guest was cloned or restored
    DeviceCheck = 1 << 2,
};

// 4 KiB of MMIO; the 32-bit register at offset 0 reads the waiting events and clears them. Writes
// and other offsets have no effect. Thread-safe.
class GenericEventDevice final : public BusDevice {
  public:
    static constexpr std::uint64_t mmio_size = 0x1000;

    // The line is edge-triggered and borrowed.
    explicit GenericEventDevice(InterruptLine& line) : line_(line) {}

    // Any thread. Raising an event that waits already pulses the line again.
    void raise(GedEvent event);

    void read(std::uint64_t offset, std::span<std::byte> data) override;
    void write(std::uint64_t offset, std::span<const std::byte> data) override;

    [[nodiscard]] std::uint32_t save() const { return pending_.load(); }
    void restore(std::uint32_t pending) { pending_.store(pending); }

  private:
    InterruptLine& line_;
    std::atomic<std::uint32_t> pending_{0};
};

}  // namespace masu::legacy

// The I/O APIC for a split irqchip: pins in, message-signalled interrupts out.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>

#include "devices/bus.hpp"
#include "devices/interrupt.hpp"

namespace masu::legacy {

inline constexpr unsigned ioapic_pin_count = 24;
inline constexpr std::uint64_t ioapic_mmio_size = 0x1000;

// Everything the guest can see or cause; a plain value for snapshots.
struct IoapicState {
    std::array<std::uint64_t, ioapic_pin_count> entries{};  // redirection table, as the guest reads
    std::uint32_t lines = 0;                                // asserted pins, bit per pin
    std::uint32_t id = 0;                                   // IOAPICID, bits 27:24
    std::uint8_t index = 0;                                 // IOREGSEL
};

// Intel 82093AA with the EOI register of later parts (version 0x20). Pin n is index n of the bank.
// Polarity is stored but not applied: a line says "asserted", whatever its voltage. A pin masked in
// the table keeps its route, since the interrupt it sent before may still wait for its EOI, and KVM
// reports EOIs only for routed vectors; a masked pin is never signalled.
// Thread-safe. The bank is called with this device's lock held.
class Ioapic final : public BusDevice {
  public:
    // The bank is borrowed and holds ioapic_pin_count rows, none routed.
    explicit Ioapic(MsiBank& bank);

    // The input pin; lives as long as the IOAPIC. pin < ioapic_pin_count.
    // Level-triggered: delivered while asserted, again after each EOI. Edge-triggered: every
    // set(true) is an edge, so that of two devices pulsing one pin at once neither loses its own;
    // an edge at a masked pin is lost, as in the hardware (82093AA, 3.2.4).
    [[nodiscard]] InterruptLine& line(unsigned pin) { return lines_.at(pin); }

    // A local APIC finished a level-triggered interrupt (KVM_EXIT_IOAPIC_EOI). Any thread.
    void end_of_interrupt(std::uint8_t vector);

    void read(std::uint64_t offset, std::span<std::byte> data) override;
    void write(std::uint64_t offset, std::span<const std::byte> data) override;

    [[nodiscard]] IoapicState save() const;
    // Also routes every pin anew.
    void restore(const IoapicState& state);

  private:
    class Line final : public InterruptLine {
      public:
        void set(bool asserted) override { ioapic_->set_line(pin_, asserted); }

      private:
        friend class Ioapic;
        Ioapic* ioapic_ = nullptr;
        unsigned pin_ = 0;
    };

    void set_line(unsigned pin, bool asserted);
    // The rest is called with mutex_ held.
    [[nodiscard]] std::uint32_t read_indexed() const;
    void write_indexed(std::uint32_t value);
    void write_entry(unsigned pin, std::uint64_t value);
    void finish(std::uint8_t vector);
    void deliver_level(unsigned pin);
    void update_route(unsigned pin);

    MsiBank& bank_;
    std::array<Line, ioapic_pin_count> lines_;
    mutable std::mutex mutex_;
    IoapicState state_;
    std::array<std::optional<MsiMessage>, ioapic_pin_count> routes_;  // what the bank was told
};

}  // namespace masu::legacy

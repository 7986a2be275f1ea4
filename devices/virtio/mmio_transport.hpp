// virtio-mmio, register layout version 2 (virtio 1.2, 4.2.2): one device in a 4 KiB window.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/event_loop.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "base/result.hpp"
#include "devices/bus.hpp"
#include "devices/guest_memory.hpp"
#include "devices/interrupt.hpp"
#include "devices/virtio/device.hpp"
#include "devices/virtio/transport.hpp"

namespace masu::virtio {

// The interrupt pin is edge-triggered (so ACPI must declare it): every notification sets its bit in
// InterruptStatus and gives one pulse, also when the bit is still set, so that an edge lost while
// the pin was masked does not silence the device for good. Devices may share a pin.
//
// The registers take aligned 32-bit accesses; anything else reads 0 or is ignored. Configuration
// space, from 0x100 on, takes 1 to 8 bytes anywhere. Shared memory regions and queue reset are not
// offered. read() and write() come from vCPU threads; the core's lifetime rules hold.
class MmioTransport final : public BusDevice, private InterruptSink {
  public:
    static constexpr std::uint64_t window_size = 0x1000;
    // Where KVM may watch for notifications: a 32-bit write of the queue's index at this offset
    // stands for core().notify_event(index).
    static constexpr std::uint64_t notify_offset = 0x050;

    // All references are borrowed and outlive the transport.
    [[nodiscard]] static Result<std::unique_ptr<MmioTransport>> create(
        std::string_view id, Device& device, const GuestMemory& memory, EventLoop& loop,
        InterruptLine& line, Metrics& metrics, const Log& log);

    void read(std::uint64_t offset, std::span<std::byte> data) override;
    void write(std::uint64_t offset, std::span<const std::byte> data) override;

    [[nodiscard]] TransportCore& core() noexcept { return *core_; }

    // See TransportCore::save() and restore(); the pin's own state is the IOAPIC's.
    [[nodiscard]] Result<SavedMmioWindow> save();
    [[nodiscard]] Result<> restore(const SavedMmioWindow& state);

  private:
    struct Register;
    struct Registers;
    explicit MmioTransport(InterruptLine& line) : line_(line) {}
    [[nodiscard]] static const Register* find(std::uint64_t offset) noexcept;

    void queue_interrupt(std::uint16_t queue) override;
    void config_interrupt() override;
    void reset() override { interrupt_status_ = 0; }
    void raise(std::uint32_t bit);

    InterruptLine& line_;
    std::uint32_t interrupt_status_ = 0;  // under core_->mutex()
    std::unique_ptr<TransportCore> core_;
};

}  // namespace masu::virtio

// What a virtio device is to its transport, and what the transport is to the device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "devices/guest_memory.hpp"
#include "devices/virtio/queue.hpp"

namespace masu::virtio {

// Virtio device IDs (virtio 1.2, 5).
enum class DeviceId : std::uint16_t { Net = 1, Block = 2, Entropy = 4, Balloon = 5, Vsock = 19 };

// The driver's side as the device may reach it. Implemented by the transport. Call only with the
// device's mutex held.
class Driver {
  public:
    virtual ~Driver() = default;
    virtual void interrupt_queue(std::uint16_t queue) = 0;  // used buffer notification
    virtual void interrupt_config() = 0;  // configuration change; bumps ConfigGeneration
    // The guest broke a rule: sets DEVICE_NEEDS_RESET, counts, logs at a limited rate, notifies.
    // The device stops touching the queue until reset().
    virtual void fault(std::string_view why) = 0;
};

// Everything a device gets when the driver has set DRIVER_OK.
struct Activation {
    const GuestMemory* memory;                 // outlives the device's use of it
    std::uint64_t features;                    // negotiated
    std::vector<std::optional<Queue>> queues;  // by index; nullopt where the driver enabled none
    Driver* driver;                            // valid until reset() returns
};

// A device as a snapshot holds it, beside what its transport knows.
struct SavedDevice {
    std::vector<std::optional<QueuePosition>> queues;  // as in Activation; empty while not active
    std::vector<std::byte> own;                        // plain data of the device's own layout
};

// A device model. It knows guest memory, queues and Driver; it knows neither the transport nor KVM.
// Every method but the constructor is called with mutex() held, by the transport: on a vCPU thread
// (registers) or on the event loop's thread (notify). A device that has events of its own (a
// completion eventfd, a timer) handles them on the loop's thread and takes mutex() there itself.
class Device {
  public:
    virtual ~Device() = default;
    [[nodiscard]] std::mutex& mutex() noexcept { return mutex_; }

    [[nodiscard]] virtual DeviceId id() const noexcept = 0;
    // Offered features besides VERSION_1, INDIRECT_DESC and EVENT_IDX, which the transport adds.
    [[nodiscard]] virtual std::uint64_t features() const noexcept = 0;
    // The maximum size of each queue; fixed for the device's life.
    [[nodiscard]] virtual std::span<const std::uint16_t> queue_sizes() const noexcept = 0;

    // Device-specific configuration space. Reads beyond its end give zeros; `data` is 1 to 8 bytes.
    virtual void read_config(std::uint64_t offset, std::span<std::byte> data) const noexcept = 0;
    virtual void write_config(std::uint64_t offset, std::span<const std::byte> data) noexcept = 0;

    virtual void activate(Activation activation) = 0;
    // The driver (or the transport, having seen that it may) says queue `index` has new buffers.
    virtual void notify(std::uint16_t index) = 0;
    // Back to before activate(): when this returns, no guest memory is in use by I/O any more and
    // the queues are gone. May wait for I/O in flight.
    virtual void reset() = 0;

    // For a snapshot, while the guest stands still. I/O in flight is waited for and answered; what
    // was taken from a queue but not begun goes back to it. Afterwards the device touches guest
    // memory no more until it is notified of each queue, which the transport sees to; then it goes
    // on. A device that does not override this cannot be part of a snapshot, and says so.
    [[nodiscard]] virtual Result<SavedDevice> save();
    // Takes SavedDevice::own back; called before activate(), which brings the queues in position.
    // The bytes may be anyone's: check them, and change nothing on an error.
    [[nodiscard]] virtual Result<> restore(std::span<const std::byte> own);

  private:
    std::mutex mutex_;
};

}  // namespace masu::virtio

// What virtio-pci and virtio-mmio have in common: status, features, queue registers, notification.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.hpp"
#include "base/fd.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "base/result.hpp"
#include "devices/guest_memory.hpp"
#include "devices/virtio/device.hpp"
#include "devices/virtio/queue.hpp"
#include "devices/virtio/saved_state.hpp"

namespace masu::virtio {

// Device status bits (virtio 1.2, 2.1).
namespace status {
inline constexpr std::uint8_t acknowledge = 1;
inline constexpr std::uint8_t driver = 2;
inline constexpr std::uint8_t driver_ok = 4;
inline constexpr std::uint8_t features_ok = 8;
inline constexpr std::uint8_t device_needs_reset = 64;
inline constexpr std::uint8_t failed = 128;
}  // namespace status

// How interrupts leave a transport: MSI-X vectors for virtio-pci, InterruptStatus and a line for
// virtio-mmio. Every call is made with the device's mutex held and must not block.
class InterruptSink {
  public:
    virtual ~InterruptSink() = default;
    virtual void queue_interrupt(std::uint16_t queue) = 0;
    virtual void config_interrupt() = 0;
    // The device was reset: vector numbers, status bits and what else the driver set are gone.
    virtual void reset() = 0;
};

// The three parts of a split virtqueue whose addresses the driver writes.
enum class RingPart : std::uint8_t { DescTable, Avail, Used };

// The registers both transports offer, behind names instead of offsets. A transport decodes an
// access, takes mutex() once for it, and calls one of the methods below.
//
// Lock: unless a method says otherwise, the caller holds mutex(). It is the device's own mutex, so
// one register access, one notification and one completion exclude each other.
// Threads: registers on vCPU threads; notifications on the loop's thread.
// Lifetime: device, memory, loop, interrupts and metrics are borrowed and outlive the core. Destroy
// it on the loop's thread or while the loop does not run; that resets the device.
class TransportCore final : public Driver {
  public:
    // `id` names the device in counters (group "virtio_<id>") and logs. Fails only when the host
    // refuses descriptors.
    [[nodiscard]] static Result<std::unique_ptr<TransportCore>> create(
        std::string_view id, Device& device, const GuestMemory& memory, EventLoop& loop,
        InterruptSink& interrupts, Metrics& metrics, const Log& log);
    ~TransportCore() override;
    TransportCore(const TransportCore&) = delete;
    TransportCore& operator=(const TransportCore&) = delete;

    [[nodiscard]] std::mutex& mutex() noexcept { return device_.mutex(); }      // no lock needed
    [[nodiscard]] DeviceId device_id() const noexcept { return device_.id(); }  // no lock needed

    // Features (2.2): 32-bit windows of the 64 bits. A window beyond the second reads 0, and a bit
    // accepted there spoils FEATURES_OK. Frozen once FEATURES_OK is set.
    void select_device_features(std::uint32_t window) noexcept { device_window_ = window; }
    void select_driver_features(std::uint32_t window) noexcept { driver_window_ = window; }
    [[nodiscard]] std::uint32_t selected_device_features() const noexcept { return device_window_; }
    [[nodiscard]] std::uint32_t selected_driver_features() const noexcept { return driver_window_; }
    [[nodiscard]] std::uint32_t device_features() const noexcept;
    [[nodiscard]] std::uint32_t driver_features() const noexcept;
    void set_driver_features(std::uint32_t bits) noexcept;

    // Device status (2.1, 3.1). Writing 0 resets: when it returns, no guest memory is in use. Other
    // writes only ever add bits. FEATURES_OK stays clear unless the driver accepted VERSION_1 and
    // nothing that was not offered; DRIVER_OK activates the device.
    [[nodiscard]] std::uint8_t status() const noexcept { return status_; }
    void set_status(std::uint8_t value);

    // Queue registers work on the selected queue. A queue that does not exist reads 0, and writes
    // to it go nowhere; so do writes to an enabled queue.
    [[nodiscard]] std::uint16_t queue_count() const noexcept {  // no lock needed
        return static_cast<std::uint16_t>(queues_.size());
    }
    void select_queue(std::uint32_t index) noexcept { selected_queue_ = index; }
    [[nodiscard]] std::uint32_t selected_queue() const noexcept { return selected_queue_; }
    [[nodiscard]] std::uint16_t queue_max_size() const noexcept;
    [[nodiscard]] std::uint16_t queue_size() const noexcept;
    void set_queue_size(std::uint32_t size) noexcept;  // ignored: no power of two, or > maximum
    [[nodiscard]] std::uint64_t queue_address(RingPart part) const noexcept;
    void set_queue_address(RingPart part, std::uint64_t address) noexcept;
    void set_queue_address_low(RingPart part, std::uint32_t low) noexcept;
    void set_queue_address_high(RingPart part, std::uint32_t high) noexcept;
    [[nodiscard]] bool queue_enabled() const noexcept;
    // Before DRIVER_OK; later it is ignored, since the device has its queues by then.
    void enable_queue() noexcept;
    // QueueReady = 0 of virtio-mmio. Taking a queue from a running device stops the whole device
    // and is a fault: afterwards the queue's memory is out of use, as the driver was promised.
    void disable_queue();

    // Device configuration space; 1 to 8 bytes, any offset.
    void read_config(std::uint64_t offset, std::span<std::byte> data) const noexcept;
    void write_config(std::uint64_t offset, std::span<const std::byte> data) noexcept;
    // Changes whenever the configuration may have changed (2.5.1).
    [[nodiscard]] std::uint32_t config_generation() const noexcept { return config_generation_; }

    // Available buffer notification that came as a register write. No lock needed. The work is
    // done on the loop's thread; an index beyond the queues is ignored.
    void notify(std::uint32_t queue) noexcept;
    // The same for one queue as an eventfd, for KVM to signal without a trip to user space.
    // `queue` < queue_count(). No lock needed.
    [[nodiscard]] const EventFd& notify_event(std::uint16_t queue) const noexcept {
        return queues_[queue].event;
    }

    // Snapshots, on the loop's thread; both take mutex() themselves. save() brings the device to
    // rest (Device::save); afterwards every queue is notified, so that it goes on if the guest
    // does. restore() is for a core fresh from create(); it checks everything the driver could not
    // have brought about, and on an error the core stays as it was.
    [[nodiscard]] Result<CoreState> save();
    [[nodiscard]] Result<> restore(const CoreState& state);

    // Driver: the device's side.
    void interrupt_queue(std::uint16_t queue) override;
    void interrupt_config() override;
    void fault(std::string_view why) override;

  private:
    struct QueueSlot {
        std::uint16_t max_size = 0;
        QueueConfig config;
        EventFd event;
        EventLoop::Watch watch;  // after event: the watch ends first
    };

    TransportCore(std::string_view id, Device& device, const GuestMemory& memory,
                  InterruptSink& interrupts, Metrics& metrics, const Log& log);
    [[nodiscard]] QueueSlot* writable_queue() noexcept;  // selected, and not enabled yet
    [[nodiscard]] const QueueSlot* queue() const noexcept;
    [[nodiscard]] bool acceptable_features() const noexcept;
    void activate();
    void notify_all() const noexcept;
    [[nodiscard]] Result<> check(const CoreState& state) const;
    [[nodiscard]] Result<std::vector<std::optional<Queue>>> restored_queues(
        const CoreState& state) const;
    void stop_device();
    void reset();
    void on_notified(std::uint16_t queue);

    std::string id_;
    Device& device_;
    const GuestMemory& memory_;
    InterruptSink& interrupts_;
    Log log_;
    Counter& faults_;
    Counter& activations_;
    Counter& notifications_;
    const std::uint64_t offered_;

    std::uint8_t status_ = 0;
    bool active_ = false;  // between Device::activate() and Device::reset()
    std::uint32_t device_window_ = 0;
    std::uint32_t driver_window_ = 0;
    std::uint64_t accepted_ = 0;
    bool accepted_unknown_ = false;  // a bit above the 64 that exist
    std::uint32_t config_generation_ = 0;
    std::uint32_t selected_queue_ = 0;
    std::vector<QueueSlot> queues_;
};

}  // namespace masu::virtio

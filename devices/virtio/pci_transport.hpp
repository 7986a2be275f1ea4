// virtio over PCI (virtio 1.2, 4.1): a modern device as one PCI function with MSI-X.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "devices/interrupt.hpp"
#include "devices/io_event.hpp"
#include "devices/pci/config_space.hpp"
#include "devices/pci/function.hpp"
#include "devices/pci/msix.hpp"
#include "devices/virtio/transport.hpp"

namespace masu::virtio {

// "No vector" of config_msix_vector and queue_msix_vector (4.1.4.3).
inline constexpr std::uint16_t no_vector = 0xffff;

// Where the structures of 4.1.4 lie in BAR 0, each in a page of its own.
namespace pci_layout {
inline constexpr unsigned bar = 0;
inline constexpr std::uint32_t common = 0x0000;
inline constexpr std::uint32_t common_size = 60;
inline constexpr std::uint32_t isr = 0x1000;
inline constexpr std::uint32_t isr_size = 1;
inline constexpr std::uint32_t device = 0x2000;
inline constexpr std::uint32_t device_size = 0x1000;
inline constexpr std::uint32_t notify = 0x3000;
inline constexpr std::uint32_t notify_multiplier = 4;
inline constexpr std::uint32_t msix_table = 0x4000;
inline constexpr std::uint32_t msix_pba = 0x5000;
inline constexpr std::uint32_t bar_size = 0x8000;
// What a page of MSI-X table holds, less the vector for configuration changes.
inline constexpr unsigned queues_max = 255;
}  // namespace pci_layout

// What of the transport is neither in the core, in MSI-X nor in configuration space; a plain value
// for snapshots.
struct PciTransportState {
    std::uint16_t config_vector = no_vector;
    std::vector<std::uint16_t> queue_vectors;  // one per queue
    std::uint8_t isr = 0;
};

// Add it to a pci::Root as a Function; remove it from there before it is destroyed.
// Threads: configuration space under the root's lock; BAR accesses on any vCPU thread, under the
// device's mutex. Lock order: root, device, MSI-X.
// Lifetime: everything create() is given is borrowed and outlives the transport, which is
// destroyed on the loop's thread or while the loop does not run.
class PciTransport final : public pci::Function, public BusDevice, private InterruptSink {
  public:
    // MSI-X vectors the device needs, and so rows of its bank: one per queue, one for configuration
    // changes.
    [[nodiscard]] static unsigned vectors_for(const Device& device) noexcept {
        return static_cast<unsigned>(device.queue_sizes().size()) + 1;
    }

    // `id` names the device in counters and logs. `io_events` may be null: then every notification
    // arrives as a register write. Fails for more than pci_layout::queues_max queues, or when the
    // host refuses descriptors.
    [[nodiscard]] static Result<std::unique_ptr<PciTransport>> create(
        std::string_view id, Device& device, const GuestMemory& memory, EventLoop& loop,
        MsiBank& bank, IoEventRegistrar* io_events, Metrics& metrics, const Log& log);
    ~PciTransport() override;
    PciTransport(const PciTransport&) = delete;
    PciTransport& operator=(const PciTransport&) = delete;

    [[nodiscard]] TransportCore& core() noexcept { return *core_; }
    [[nodiscard]] pci::Msix& msix() noexcept { return msix_; }

    // pci::Function.
    [[nodiscard]] pci::ConfigSpace& config() override { return config_; }
    void read_config(std::uint16_t offset, std::span<std::byte> data) override;
    void write_config(std::uint16_t offset, std::span<const std::byte> data) override;
    [[nodiscard]] BusDevice* bar_device(unsigned) override { return this; }
    void bar_moved(unsigned bar, std::optional<std::uint64_t> address) override;

    // BusDevice: BAR 0. An access that is not of the widths in 4.1.3.1 reads ones or is ignored.
    void read(std::uint64_t offset, std::span<std::byte> data) override;
    void write(std::uint64_t offset, std::span<const std::byte> data) override;

    [[nodiscard]] PciTransportState save();
    // A state for another number of queues is an error and changes nothing.
    [[nodiscard]] Result<> restore(const PciTransportState& state);

    // The whole function: core, device, MSI-X, configuration space and the above; `number` is left
    // to whoever knows the bus. On the loop's thread. restore_function() is for a transport fresh
    // from create(), before it is on the bus; the configuration space takes only what a guest may
    // write.
    [[nodiscard]] Result<SavedPciFunction> save_function();
    [[nodiscard]] Result<> restore_function(const SavedPciFunction& state);

  private:
    struct CommonRegister;
    [[nodiscard]] static std::span<const CommonRegister> common_registers() noexcept;
    [[nodiscard]] static const CommonRegister* find_common(std::uint64_t offset) noexcept;

    PciTransport(Device& device, MsiBank& bank, IoEventRegistrar* io_events, const Log& log);
    [[nodiscard]] Result<> add_capabilities();

    // With the device's mutex held.
    void read_common(std::uint64_t offset, std::span<std::byte> data);
    void write_common(std::uint64_t offset, std::span<const std::byte> data);
    [[nodiscard]] std::uint16_t queue_vector() const noexcept;  // of the selected queue
    void set_queue_vector(std::uint64_t vector) noexcept;
    [[nodiscard]] std::uint16_t valid_vector(std::uint64_t vector) const noexcept;

    void notify(std::uint64_t offset);
    void add_io_events(std::uint64_t bar_address);
    void remove_io_events() noexcept;

    // The window of VIRTIO_PCI_CAP_PCI_CFG; nullopt while it points at nothing valid.
    struct Window {
        std::uint32_t offset;
        std::uint32_t length;
    };
    [[nodiscard]] std::optional<Window> window() const noexcept;

    // InterruptSink: with the device's mutex held.
    void queue_interrupt(std::uint16_t queue) override;
    void config_interrupt() override;
    void reset() override;

    Log log_;
    IoEventRegistrar* io_events_;
    std::uint64_t io_events_base_ = 0;
    std::vector<bool> io_event_added_;  // per queue, at io_events_base_
    pci::ConfigSpace config_;
    std::uint16_t pci_cfg_capability_ = 0;  // its offset
    pci::Msix msix_;
    PciTransportState state_;              // guarded by the device's mutex
    std::unique_ptr<TransportCore> core_;  // last: its end still interrupts
};

}  // namespace masu::virtio

// One KVM virtual machine: memory slots, interrupt delivery, doorbells and the clock.
#pragma once

#include "vmm/kvm/kvm_abi.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "devices/guest_memory.hpp"
#include "devices/interrupt.hpp"
#include "devices/io_event.hpp"
#include "vmm/kvm/irq_routes.hpp"
#include "vmm/kvm/kvm.hpp"

namespace masu::kvm {

// Where a doorbell write lands.
enum class IoSpace { Mmio, Port };

// Owns the VM descriptor. The kernel frees the VM when this and every vCPU and irqfd are gone.
// Methods may be called from any thread: each is one ioctl. Order at set-up, for the reasons in
// docs/architecture.md: create() (interrupt controller), memory, vCPUs, doorbells last.
class Vm final : public InterruptGate, public IoEventRegistrar {
  public:
    // Makes the VM with a split interrupt controller: LAPICs in the kernel, the IOAPIC (24 pins)
    // ours.
    [[nodiscard]] static Result<std::unique_ptr<Vm>> create(const Kvm& kvm);

    // Puts each region into a slot of its own. The memory must outlive the Vm.
    [[nodiscard]] Result<> map_memory(const GuestMemory& memory);

    // Lets KVM log which pages vCPUs write to, or not any more. For the memory that map_memory()
    // was given; the log starts empty. With `manual` a page once reported is written to without
    // another report until clear_dirty_log().
    [[nodiscard]] Result<> set_dirty_log(const GuestMemory& memory, bool on);
    [[nodiscard]] Result<> set_manual_dirty_log();
    // The log of a region (its index in the memory), 64 pages a word; pages past its end are 0.
    // Without manual protection the log is empty afterwards.
    [[nodiscard]] Result<> dirty_log(unsigned region, std::span<std::uint64_t> words) const;
    // `first` is a multiple of 64; `pages` too, or the rest of the region.
    [[nodiscard]] Result<> clear_dirty_log(unsigned region, std::uint64_t first,
                                           std::uint32_t pages,
                                           std::span<const std::uint64_t> words);

    // A write of `size` bytes (0: any size; 1, 2, 4 or 8) at `address`, of `value` only when it is
    // given, signals `event` in the kernel instead of leaving the guest.
    [[nodiscard]] Result<> add_io_event(IoSpace space, std::uint64_t address, unsigned size,
                                        std::optional<std::uint64_t> value, const EventFd& event);
    void remove_io_event(IoSpace space, std::uint64_t address, unsigned size,
                         std::optional<std::uint64_t> value, const EventFd& event);

    // IoEventRegistrar: MMIO writes of any size and value.
    [[nodiscard]] Result<> add(std::uint64_t address, const EventFd& event) override;
    void remove(std::uint64_t address, const EventFd& event) override;

    // kvmclock, for pauses and snapshots.
    [[nodiscard]] Result<kvm_clock_data> clock() const;
    [[nodiscard]] Result<> set_clock(const kvm_clock_data& clock);

    // InterruptGate: used by IrqRoutes.
    [[nodiscard]] Result<> set_routes(std::span<const kvm_irq_routing_entry> routes) override;
    [[nodiscard]] Result<> attach(unsigned gsi, const EventFd& event) override;
    void detach(unsigned gsi, const EventFd& event) noexcept override;
    void send(const MsiMessage& message) noexcept override;

    [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  private:
    explicit Vm(Fd fd) noexcept : fd_(std::move(fd)) {}
    Fd fd_;
    unsigned slots_ = 0;
};

}  // namespace masu::kvm

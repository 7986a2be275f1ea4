// The table of interrupt routes, kept in one place and given to KVM in as few calls as possible.
#pragma once

#include "vmm/kvm/kvm_abi.hpp"

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/fd.hpp"
#include "base/log.hpp"
#include "base/result.hpp"
#include "devices/interrupt.hpp"
#include "vmm/layout.hpp"

namespace masu::kvm {

// What the routes need of KVM; a fake in tests.
class InterruptGate {
  public:
    virtual ~InterruptGate() = default;
    virtual Result<> set_routes(std::span<const kvm_irq_routing_entry> routes) = 0;
    virtual Result<> attach(unsigned gsi, const EventFd& event) = 0;
    virtual void detach(unsigned gsi, const EventFd& event) noexcept = 0;
    virtual void send(const MsiMessage& message) noexcept = 0;
};

// Replacing KVM's table costs a grace period, so route() only notes a change; the table is handed
// over, whole, by the next signal() of a changed index, or by commit(). A masked index keeps its
// last route in the table: unmasking it unchanged, which drivers do all the time, is free.
//
// Thread-safe. Lock order: a device's lock, then mutex_; no lock is taken with mutex_ held.
// The gate must outlive this, and this must outlive the banks.
class IrqRoutes {
  public:
    explicit IrqRoutes(InterruptGate& gate, Log log = {});
    ~IrqRoutes();
    IrqRoutes(const IrqRoutes&) = delete;
    IrqRoutes& operator=(const IrqRoutes&) = delete;

    // The 24 pins of the IOAPIC, GSI 0 to 23. Messages carry trigger mode and level as the LAPIC
    // takes them (data bits 15 and 14, Intel SDM vol. 3, 11.11.2). A level-triggered pin is in
    // KVM's table before its first message is sent, because KVM finds there which end of interrupt
    // to report (KVM_EXIT_IOAPIC_EOI).
    [[nodiscard]] MsiBank& ioapic() noexcept;

    // A device's own bank of `vectors` indices, with an irqfd each; GSIs from
    // layout::msi_first_gsi up. The bank gives everything back when destroyed.
    [[nodiscard]] Result<std::unique_ptr<MsiBank>> create_bank(unsigned vectors);

    // Hands over what is outstanding now; nothing to do is success.
    [[nodiscard]] Result<> commit();

  private:
    class Bank;
    class IoapicBank;
    class IrqfdBank;

    [[nodiscard]] Result<> commit_locked();
    [[nodiscard]] std::optional<unsigned> find_gap_locked(unsigned count) const;
    void forget(const Bank& bank) noexcept;

    InterruptGate& gate_;
    Log log_;
    std::mutex mutex_;          // guards banks_, dirty_ and the routes inside the banks
    std::vector<Bank*> banks_;  // in order of GSI
    bool dirty_ = false;        // banks_ say other than KVM's table
    std::vector<kvm_irq_routing_entry> table_;  // scratch of commit_locked()
    std::unique_ptr<IoapicBank> ioapic_;
};

}  // namespace masu::kvm

#include "vmm/kvm/irq_routes.hpp"

#include <algorithm>
#include <atomic>

namespace masu::kvm {

namespace {

// KVM_MAX_IRQ_ROUTES, which no header gives to user space.
constexpr unsigned max_gsi = 4096;

// One bad entry would make KVM refuse the whole table: with 32-bit APIC ids the low byte of the
// upper address half must be 0. A guest that writes another loses this interrupt only.
bool acceptable(const MsiMessage& message) {
    return ((message.address >> 32) & 0xff) == 0;
}

// Intel SDM vol. 3, 11.11.2.
bool is_level_triggered(const MsiMessage& message) {
    return (message.data & (1U << 15)) != 0;
}

}  // namespace

// A run of GSIs and what each sends.
class IrqRoutes::Bank : public MsiBank {
  public:
    struct Vector {
        MsiMessage message;              // guarded by mutex_
        bool in_table = false;           // guarded by mutex_: wanted in KVM's table
        std::atomic<bool> live{false};   // routed and not masked
        std::atomic<bool> stale{false};  // message or in_table not yet in KVM's table
        std::optional<EventFd> event;    // fixed once the bank is made
    };

    Bank(IrqRoutes& routes, unsigned first_gsi, unsigned count)
        : routes_(routes), first_gsi_(first_gsi), vectors_(count) {}

    [[nodiscard]] unsigned first_gsi() const noexcept { return first_gsi_; }
    [[nodiscard]] std::span<Vector> vectors() noexcept { return vectors_; }

    void route(unsigned index, std::optional<MsiMessage> message) override {
        if (index >= vectors_.size())
            return;
        auto& vector = vectors_[index];
        if (!message || !acceptable(*message)) {
            vector.live.store(false, std::memory_order_release);
            return;
        }
        const bool in_table = belongs_in_table(*message);
        {
            const std::lock_guard lock(routes_.mutex_);
            const bool changed =
                vector.in_table != in_table || (in_table && vector.message != *message);
            vector.message = *message;
            vector.in_table = in_table;
            if (changed) {
                vector.stale.store(true, std::memory_order_release);
                routes_.dirty_ = true;
            }
        }
        // Pairs with signal(): who sees it live sees it stale too.
        vector.live.store(true, std::memory_order_release);
    }

    void signal(unsigned index) override {
        if (index >= vectors_.size())
            return;
        auto& vector = vectors_[index];
        if (!vector.live.load(std::memory_order_acquire))
            return;
        if (vector.stale.load(std::memory_order_acquire)) {
            if (const auto done = routes_.commit(); !done) {
                routes_.log_.guest_fault("interrupt lost", {kv("gsi", first_gsi_ + index),
                                                            kv("cause", done.error().message)});
                return;
            }
        }
        send(vector);
    }

  protected:
    [[nodiscard]] virtual bool belongs_in_table(const MsiMessage& message) const noexcept = 0;
    virtual void send(Vector& vector) = 0;

    IrqRoutes& routes_;
    unsigned first_gsi_;
    std::vector<Vector> vectors_;
};

// The IOAPIC's messages are sent by a call: pins are many and signalled rarely, and an
// edge-triggered one never needs the table.
class IrqRoutes::IoapicBank final : public Bank {
  public:
    explicit IoapicBank(IrqRoutes& routes) : Bank(routes, 0, layout::ioapic_pins) {}

  private:
    bool belongs_in_table(const MsiMessage& message) const noexcept override {
        return is_level_triggered(message);
    }
    void send(Vector& vector) override {
        MsiMessage message;
        {
            const std::lock_guard lock(routes_.mutex_);
            message = vector.message;
        }
        routes_.gate_.send(message);
    }
};

class IrqRoutes::IrqfdBank final : public Bank {
  public:
    using Bank::Bank;
    ~IrqfdBank() override {
        for (unsigned i = 0; i < attached_; ++i)
            routes_.gate_.detach(first_gsi_ + i, *vectors_[i].event);
        routes_.forget(*this);
    }
    IrqfdBank(const IrqfdBank&) = delete;
    IrqfdBank& operator=(const IrqfdBank&) = delete;

    Result<> attach() {
        for (auto& vector : vectors_) {
            vector.event.emplace(TRY(EventFd::create()));
            TRY(routes_.gate_.attach(first_gsi_ + attached_, *vector.event));
            ++attached_;
        }
        return {};
    }

  private:
    bool belongs_in_table(const MsiMessage& /*message*/) const noexcept override { return true; }
    void send(Vector& vector) override { vector.event->signal(); }

    unsigned attached_ = 0;
};

IrqRoutes::IrqRoutes(InterruptGate& gate, Log log)
    : gate_(gate), log_(std::move(log)), ioapic_(std::make_unique<IoapicBank>(*this)) {
    banks_.push_back(ioapic_.get());
}

IrqRoutes::~IrqRoutes() = default;

MsiBank& IrqRoutes::ioapic() noexcept {
    return *ioapic_;
}

Result<std::unique_ptr<MsiBank>> IrqRoutes::create_bank(unsigned vectors) {
    std::unique_ptr<IrqfdBank> bank;
    {
        const std::lock_guard lock(mutex_);
        const auto first = find_gap_locked(vectors);
        if (!first)
            return fail("no {} interrupts are left of KVM's {}: use fewer devices or queues",
                        vectors, max_gsi);
        bank = std::make_unique<IrqfdBank>(*this, *first, vectors);
        const auto place = std::find_if(banks_.begin(), banks_.end(), [&](const Bank* other) {
            return other->first_gsi() > *first;
        });
        banks_.insert(place, bank.get());
    }
    TRY(bank->attach());
    return bank;
}

std::optional<unsigned> IrqRoutes::find_gap_locked(unsigned count) const {
    unsigned candidate = layout::msi_first_gsi;
    for (auto* const bank : banks_) {
        if (bank->first_gsi() >= candidate + count)
            break;
        candidate = std::max<unsigned>(
            candidate, bank->first_gsi() + static_cast<unsigned>(bank->vectors().size()));
    }
    if (count > max_gsi || candidate > max_gsi - count)
        return std::nullopt;
    return candidate;
}

void IrqRoutes::forget(const Bank& bank) noexcept {
    const std::lock_guard lock(mutex_);
    std::erase(banks_, &bank);
    dirty_ = true;
}

Result<> IrqRoutes::commit() {
    const std::lock_guard lock(mutex_);
    return commit_locked();
}

Result<> IrqRoutes::commit_locked() {
    if (!dirty_)
        return {};
    table_.clear();
    for (auto* const bank : banks_) {
        unsigned gsi = bank->first_gsi();
        for (const auto& vector : bank->vectors()) {
            if (vector.in_table) {
                kvm_irq_routing_entry entry{};
                entry.gsi = gsi;
                entry.type = KVM_IRQ_ROUTING_MSI;
                entry.u.msi.address_lo = static_cast<std::uint32_t>(vector.message.address);
                entry.u.msi.address_hi = static_cast<std::uint32_t>(vector.message.address >> 32);
                entry.u.msi.data = vector.message.data;
                table_.push_back(entry);
            }
            ++gsi;
        }
    }
    TRY(gate_.set_routes(table_));
    dirty_ = false;
    for (auto* const bank : banks_) {
        for (auto& vector : bank->vectors())
            vector.stale.store(false, std::memory_order_release);
    }
    return {};
}

}  // namespace masu::kvm

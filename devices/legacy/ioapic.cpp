#include "devices/legacy/ioapic.hpp"

#include <algorithm>
#include <cstring>

#include "base/bytes.hpp"

namespace masu::legacy {
namespace {

// MMIO registers (82093AA, 3.1; EOI register: ICH datasheets, 13.5.1).
constexpr std::uint64_t io_register_select = 0x00;
constexpr std::uint64_t io_window = 0x10;
constexpr std::uint64_t eoi_register = 0x40;

// Registers behind the window.
constexpr std::uint8_t index_id = 0x00;
constexpr std::uint8_t index_version = 0x01;
constexpr std::uint8_t index_arbitration = 0x02;
constexpr std::uint8_t index_table = 0x10;  // two 32-bit halves an entry

constexpr std::uint32_t id_mask = 0x0f00'0000;
constexpr std::uint32_t version = 0x20 | (ioapic_pin_count - 1) << 16;

// Redirection table entry (82093AA, 3.2.4).
constexpr std::uint64_t entry_vector = 0xff;
constexpr std::uint64_t entry_delivery_mode = 0x700;
constexpr std::uint64_t entry_logical_destination = 1U << 11;
constexpr std::uint64_t entry_delivery_status = 1U << 12;
constexpr std::uint64_t entry_remote_irr = 1U << 14;
constexpr std::uint64_t entry_level = 1U << 15;
constexpr std::uint64_t entry_masked = 1U << 16;
constexpr unsigned entry_extended_destination_shift = 49;  // 7 bits, as KVM and Hyper-V define them
constexpr unsigned entry_destination_shift = 56;
constexpr std::uint64_t entry_read_only = entry_remote_irr | entry_delivery_status;
constexpr std::uint64_t entry_writable = 0xfffe'0000'0001'afff;

enum DeliveryMode : std::uint64_t {
    Fixed = 0x000,
    LowestPriority = 0x100,
    Smi = 0x200,
    Nmi = 0x400,
    Init = 0x500,
};

// Intel SDM vol. 3, 11.11. ExtINT has no 8259 to ask here, and the other modes are reserved.
std::optional<MsiMessage> message_of(std::uint64_t entry) {
    switch (entry & entry_delivery_mode) {
        case Fixed:
        case LowestPriority:
        case Smi:
        case Nmi:
        case Init:
            break;
        default:
            return std::nullopt;
    }
    constexpr std::uint64_t msi_base = 0xfee0'0000;
    constexpr std::uint64_t msi_level_assert = 1U << 14;
    MsiMessage message;
    message.address = msi_base | (entry >> entry_destination_shift) << 12 |
                      ((entry >> entry_extended_destination_shift) & 0x7f) << 5 |
                      ((entry & entry_logical_destination) != 0 ? 1U << 2 : 0U);
    message.data = static_cast<std::uint32_t>(
        (entry & (entry_vector | entry_delivery_mode | entry_level)) | msi_level_assert);
    return message;
}

bool is_level(std::uint64_t entry) {
    return (entry & entry_level) != 0;
}

bool is_masked(std::uint64_t entry) {
    return (entry & entry_masked) != 0;
}

// Narrow reads get the low bytes of a register, wide ones are zero-extended.
void put(std::span<std::byte> data, std::uint32_t value) {
    const std::uint64_t wide = value;
    std::memcpy(data.data(), &wide, std::min(data.size(), sizeof wide));
}

}  // namespace

Ioapic::Ioapic(MsiBank& bank) : bank_(bank) {
    for (unsigned pin = 0; pin < ioapic_pin_count; ++pin) {
        lines_[pin].ioapic_ = this;
        lines_[pin].pin_ = pin;
    }
    state_.entries.fill(entry_masked);
}

void Ioapic::read(std::uint64_t offset, std::span<std::byte> data) {
    const std::lock_guard lock(mutex_);
    if (offset == io_register_select)
        put(data, state_.index);
    else if (offset == io_window)
        put(data, read_indexed());
}

void Ioapic::write(std::uint64_t offset, std::span<const std::byte> data) {
    if (data.empty())
        return;
    const std::lock_guard lock(mutex_);
    const auto low_byte = std::to_integer<std::uint8_t>(data[0]);
    if (offset == io_register_select)
        state_.index = low_byte;
    else if (offset == eoi_register)
        finish(low_byte);
    else if (offset == io_window && data.size() >= sizeof(std::uint32_t))
        write_indexed(load_unaligned<std::uint32_t>(data.data()));
}

std::uint32_t Ioapic::read_indexed() const {
    switch (state_.index) {
        case index_id:
        case index_arbitration:
            return state_.id;
        case index_version:
            return version;
        default:
            break;
    }
    const unsigned half = state_.index - unsigned{index_table};
    if (state_.index < index_table || half >= 2 * ioapic_pin_count)
        return 0;
    const auto entry = state_.entries[half / 2];
    return static_cast<std::uint32_t>(half % 2 == 0 ? entry : entry >> 32);
}

void Ioapic::write_indexed(std::uint32_t value) {
    if (state_.index == index_id) {
        state_.id = value & id_mask;
        return;
    }
    const unsigned half = state_.index - unsigned{index_table};
    if (state_.index < index_table || half >= 2 * ioapic_pin_count)
        return;
    const unsigned pin = half / 2;
    const std::uint64_t old = state_.entries[pin];
    write_entry(pin, half % 2 == 0 ? (old >> 32 << 32) | value
                                   : (old & 0xffff'ffff) | std::uint64_t{value} << 32);
}

void Ioapic::write_entry(unsigned pin, std::uint64_t value) {
    auto& entry = state_.entries[pin];
    entry = (value & entry_writable) | (entry & entry_read_only);
    // Kernels without an EOI register to use clear a stuck remote IRR by a detour through edge
    // mode.
    if (!is_level(entry))
        entry &= ~entry_remote_irr;
    if (is_masked(entry))
        return;
    update_route(pin);
    deliver_level(pin);
}

void Ioapic::update_route(unsigned pin) {
    const auto message = message_of(state_.entries[pin]);
    if (message == routes_[pin])
        return;
    routes_[pin] = message;
    bank_.route(pin, message);
}

void Ioapic::deliver_level(unsigned pin) {
    auto& entry = state_.entries[pin];
    const bool asserted = (state_.lines >> pin & 1) != 0;
    if (!asserted || !is_level(entry) || is_masked(entry) || (entry & entry_remote_irr) != 0)
        return;
    // Without a message nobody would ever send the EOI.
    if (!routes_[pin])
        return;
    entry |= entry_remote_irr;
    bank_.signal(pin);
}

void Ioapic::set_line(unsigned pin, bool asserted) {
    const std::lock_guard lock(mutex_);
    const std::uint32_t bit = 1U << pin;
    state_.lines = asserted ? state_.lines | bit : state_.lines & ~bit;
    const auto entry = state_.entries[pin];
    if (is_level(entry))
        deliver_level(pin);
    else if (asserted && !is_masked(entry) && routes_[pin])
        bank_.signal(pin);
}

void Ioapic::end_of_interrupt(std::uint8_t vector) {
    const std::lock_guard lock(mutex_);
    finish(vector);
}

void Ioapic::finish(std::uint8_t vector) {
    for (unsigned pin = 0; pin < ioapic_pin_count; ++pin) {
        auto& entry = state_.entries[pin];
        if (!is_level(entry) || (entry & entry_vector) != vector)
            continue;
        entry &= ~entry_remote_irr;
        deliver_level(pin);
    }
}

IoapicState Ioapic::save() const {
    const std::lock_guard lock(mutex_);
    return state_;
}

void Ioapic::restore(const IoapicState& state) {
    const std::lock_guard lock(mutex_);
    state_ = state;
    for (unsigned pin = 0; pin < ioapic_pin_count; ++pin) {
        const auto entry = state_.entries[pin];
        if (!is_masked(entry) || (entry & entry_remote_irr) != 0)
            update_route(pin);
    }
}

}  // namespace masu::legacy

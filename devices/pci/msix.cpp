// Routing follows the masks; pending bits remember what came while masked.
#include "devices/pci/msix.hpp"

#include <algorithm>
#include <array>

#include "base/bytes.hpp"

namespace masu::pci {

namespace {

constexpr std::uint16_t control_enable = 1 << 15;
constexpr std::uint16_t control_function_mask = 1 << 14;
constexpr std::uint32_t entry_masked = 1;

bool accessible(std::uint64_t offset, std::size_t size, std::size_t limit) noexcept {
    return (size == 4 || size == 8) && is_aligned(offset, size) && offset < limit &&
           size <= limit - offset;
}

std::uint32_t& dword_of(MsixEntry& entry, std::size_t index) noexcept {
    switch (index) {
        case 0:
            return entry.address_low;
        case 1:
            return entry.address_high;
        case 2:
            return entry.data;
        default:
            return entry.control;
    }
}

}  // namespace

Msix::Msix(MsiBank& bank, unsigned vectors)
    : bank_(bank), vectors_(std::clamp(vectors, 1U, msix_vectors_max)), routes_(vectors_) {
    state_.table.resize(vectors_);
    state_.pending.resize((vectors_ + 63) / 64);
}

Result<> Msix::add_capability(ConfigSpace& space, const Placement& placement) {
    struct Body {
        std::uint16_t message_control;
        std::uint32_t table;
        std::uint32_t pba;
    } __attribute__((packed));
    static_assert(sizeof(Body) == 10);
    const Body body{.message_control = static_cast<std::uint16_t>(vectors_ - 1),
                    .table = placement.table_offset | placement.bar,
                    .pba = placement.pba_offset | placement.bar};
    const Body writable{
        .message_control = control_enable | control_function_mask, .table = 0, .pba = 0};
    capability_ =
        TRY(space.add_capability(capability::msix, as_bytes_of(body), as_bytes_of(writable)));
    return {};
}

void Msix::config_written(const ConfigSpace& space) {
    const auto control = space.get<std::uint16_t>(static_cast<std::uint16_t>(capability_ + 2));
    const bool enabled = (control & control_enable) != 0;
    const bool masked = (control & control_function_mask) != 0;
    const std::lock_guard lock(mutex_);
    if (enabled == state_.enabled && masked == state_.function_masked)
        return;
    state_.enabled = enabled;
    state_.function_masked = masked;
    update_all();
}

void Msix::read_table(std::uint64_t offset, std::span<std::byte> data) const {
    if (!accessible(offset, data.size(), table_size()))
        return;
    const std::lock_guard lock(mutex_);
    for (std::size_t done = 0; done < data.size(); done += 4) {
        auto entry = state_.table[(offset + done) / msix_entry_size];
        store_unaligned(data.data() + done, dword_of(entry, (offset + done) % msix_entry_size / 4));
    }
}

void Msix::write_table(std::uint64_t offset, std::span<const std::byte> data) {
    if (!accessible(offset, data.size(), table_size()))
        return;
    const std::lock_guard lock(mutex_);
    for (std::size_t done = 0; done < data.size(); done += 4)
        write_dword((offset + done) / 4, load_unaligned<std::uint32_t>(data.data() + done));
    update(static_cast<unsigned>(offset / msix_entry_size));
}

void Msix::write_dword(std::size_t index, std::uint32_t value) {
    const std::size_t field = index % 4;
    if (field == 0)
        value &= ~std::uint32_t{3};  // 6.8.2.4: the message address is a multiple of 4
    if (field == 3)
        value &= entry_masked;
    dword_of(state_.table[index / 4], field) = value;
}

void Msix::read_pba(std::uint64_t offset, std::span<std::byte> data) const {
    if (!accessible(offset, data.size(), pba_size()))
        return;
    const std::lock_guard lock(mutex_);
    const auto bytes = std::as_bytes(std::span(state_.pending));
    std::ranges::copy(bytes.subspan(offset, data.size()), data.begin());
}

bool Msix::deliverable(unsigned vector) const noexcept {
    return state_.enabled && !state_.function_masked &&
           (state_.table[vector].control & entry_masked) == 0;
}

void Msix::update(unsigned vector) {
    const auto& entry = state_.table[vector];
    std::optional<MsiMessage> message;
    if (deliverable(vector))
        message =
            MsiMessage{.address = entry.address_low | (std::uint64_t{entry.address_high} << 32),
                       .data = entry.data};
    if (message != routes_[vector]) {
        routes_[vector] = message;
        bank_.route(vector, message);
    }
    auto& word = state_.pending[vector / 64];
    const auto bit = std::uint64_t{1} << (vector % 64);
    if (message && (word & bit) != 0) {
        word &= ~bit;
        bank_.signal(vector);
    }
}

void Msix::update_all() {
    for (unsigned vector = 0; vector < vectors_; ++vector)
        update(vector);
}

void Msix::signal(unsigned vector) {
    const std::lock_guard lock(mutex_);
    if (vector >= vectors_ || !state_.enabled)
        return;
    if (deliverable(vector))
        bank_.signal(vector);
    else
        state_.pending[vector / 64] |= std::uint64_t{1} << (vector % 64);
}

MsixState Msix::save() const {
    const std::lock_guard lock(mutex_);
    return state_;
}

Result<> Msix::restore(const MsixState& state) {
    const std::lock_guard lock(mutex_);
    if (state.table.size() != state_.table.size() || state.pending.size() != state_.pending.size())
        return fail("the saved MSI-X table has {} vectors, the device {}", state.table.size(),
                    vectors_);
    state_ = state;
    update_all();
    return {};
}

}  // namespace masu::pci

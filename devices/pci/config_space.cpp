// Masks, BAR registers and the capability list.
#include "devices/pci/config_space.hpp"

#include <algorithm>
#include <bit>

namespace masu::pci {

namespace {

constexpr std::uint16_t status_capability_list = 1 << 4;
// Master data parity error, signalled and received aborts, SERR, parity error.
constexpr std::uint16_t status_write_1_clears = 0xf900;
constexpr std::uint32_t bar_64_bit = 0b100;
constexpr std::uint32_t bar_flags = 0xf;

constexpr std::uint16_t bar_register(unsigned index) noexcept {
    return static_cast<std::uint16_t>(reg::bar0 + 4 * index);
}

}  // namespace

ConfigSpace::ConfigSpace(const Identity& identity) {
    set(reg::vendor_id, identity.vendor);
    set(reg::device_id, identity.device);
    set(reg::revision_id, (identity.class_code << 8) | identity.revision);
    set(reg::subsystem_vendor_id, identity.subsystem_vendor);
    set(reg::subsystem_id, identity.subsystem);

    allow_write(reg::command,
                command::memory_space | command::bus_master | command::parity_error_response |
                    command::serr_enable | command::interrupt_disable,
                2);
    store_unaligned(write_1_clears_.data() + reg::status, status_write_1_clears);
    allow_write(reg::cache_line_size, 0xff, 1);
    allow_write(reg::interrupt_line, 0xff, 1);
}

void ConfigSpace::allow_write(std::uint16_t offset, std::uint32_t mask, unsigned size) noexcept {
    for (unsigned i = 0; i < size; ++i)
        writable_[offset + i] = static_cast<std::byte>(mask >> (8 * i));
}

Result<> ConfigSpace::add_bar(unsigned index, BarKind kind, std::uint64_t size) {
    const unsigned registers = kind == BarKind::Memory64 ? 2 : 1;
    if (!std::has_single_bit(size) || size < 16 ||
        (kind == BarKind::Memory32 && size > 0x8000'0000))
        return fail("PCI BAR {} cannot have a size of {:#x}", index, size);
    if (index + registers > bar_count || bars_[index].taken ||
        (registers == 2 && bars_[index + 1].taken))
        return fail("PCI BAR {} is taken or does not exist", index);
    bars_[index] = {.kind = kind, .size = size, .taken = true};
    const std::uint64_t mask = ~(size - 1);
    allow_write(bar_register(index), static_cast<std::uint32_t>(mask), 4);
    if (registers == 2) {
        bars_[index + 1].taken = true;
        set(bar_register(index), bar_64_bit);
        allow_write(bar_register(index + 1), static_cast<std::uint32_t>(mask >> 32), 4);
    }
    return {};
}

Result<std::uint16_t> ConfigSpace::add_capability(std::uint8_t id, std::span<const std::byte> body,
                                                  std::span<const std::byte> writable) {
    const std::uint16_t offset = next_free_;
    const std::size_t end = offset + 2 + body.size();
    if (end > reg::conventional_end || writable.size() > body.size())
        return fail("PCI capability {:#x} does not fit into the configuration space", id);
    const auto pointer = last_capability_ == 0 ? reg::capabilities
                                               : static_cast<std::uint16_t>(last_capability_ + 1);
    set(pointer, static_cast<std::uint8_t>(offset));
    set(offset, id);
    std::ranges::copy(body, state_.bytes.begin() + offset + 2);
    std::ranges::copy(writable, writable_.begin() + offset + 2);
    set(reg::status,
        static_cast<std::uint16_t>(get<std::uint16_t>(reg::status) | status_capability_list));
    last_capability_ = offset;
    next_free_ = static_cast<std::uint16_t>(align_up(end, 4));
    return offset;
}

void ConfigSpace::read(std::uint16_t offset, std::span<std::byte> data) const noexcept {
    std::ranges::fill(data, std::byte{0xff});
    if (offset >= config_space_size)
        return;
    const auto size = std::min(data.size(), config_space_size - offset);
    std::copy_n(state_.bytes.begin() + offset, size, data.begin());
}

void ConfigSpace::write(std::uint16_t offset, std::span<const std::byte> data) noexcept {
    for (std::size_t i = 0; i < data.size() && offset + i < config_space_size; ++i) {
        auto& byte = state_.bytes[offset + i];
        const auto mask = writable_[offset + i];
        byte = ((byte & ~mask) | (data[i] & mask)) & ~(data[i] & write_1_clears_[offset + i]);
    }
}

std::uint64_t ConfigSpace::bar_size(unsigned index) const noexcept {
    return index < bar_count ? bars_[index].size : 0;
}

std::uint64_t ConfigSpace::bar_address(unsigned index) const noexcept {
    if (bar_size(index) == 0)
        return 0;
    const std::uint64_t low = get<std::uint32_t>(bar_register(index)) & ~bar_flags;
    if (bars_[index].kind == BarKind::Memory32)
        return low;
    return low | (std::uint64_t{get<std::uint32_t>(bar_register(index + 1))} << 32);
}

void ConfigSpace::set_bar_address(unsigned index, std::uint64_t address) noexcept {
    if (bar_size(index) == 0)
        return;
    write(bar_register(index), as_bytes_of(static_cast<std::uint32_t>(address)));
    if (bars_[index].kind == BarKind::Memory64)
        write(bar_register(index + 1), as_bytes_of(static_cast<std::uint32_t>(address >> 32)));
}

void ConfigSpace::restore(const ConfigState& state) noexcept {
    for (std::size_t i = 0; i < config_space_size; ++i) {
        const auto mask = writable_[i] | write_1_clears_[i];
        state_.bytes[i] = (state_.bytes[i] & ~mask) | (state.bytes[i] & mask);
    }
}

}  // namespace masu::pci

#include "firmware/virtio/queue.hpp"

#include "firmware/platform/cpu.hpp"
#include "firmware/virtio/registers.hpp"

namespace masu::firmware::virtio {
namespace {

constexpr std::size_t avail_offset = 2048;
constexpr std::size_t used_offset = 4096;
constexpr std::uint16_t flag_next = 1;
constexpr std::uint16_t flag_write = 2;
constexpr std::uint16_t no_interrupt = 1;

template <class T>
volatile T& cell(std::byte* memory, std::size_t offset) noexcept {
    return *reinterpret_cast<volatile T*>(memory + offset);
}

}  // namespace

bool Queue::set_up(const Device& device, std::uint16_t index, std::byte* memory) noexcept {
    memory_ = memory;
    index_ = index;
    const auto common = device.common;
    cpu::mmio_write<std::uint16_t>(common + common::queue_select, index);
    if (cpu::mmio_read<std::uint16_t>(common + common::queue_size) < size)
        return false;
    cpu::mmio_write<std::uint16_t>(common + common::queue_size, size);
    const auto base = reinterpret_cast<std::uint64_t>(memory);
    const auto write_address = [&](std::uint64_t at, std::uint64_t value) {
        cpu::mmio_write<std::uint32_t>(common + at, static_cast<std::uint32_t>(value));
        cpu::mmio_write<std::uint32_t>(common + at + 4, static_cast<std::uint32_t>(value >> 32));
    };
    write_address(common::queue_desc, base);
    write_address(common::queue_driver, base + avail_offset);
    write_address(common::queue_device, base + used_offset);
    cell<std::uint16_t>(memory_, avail_offset) = no_interrupt;
    notify_ = device.notify +
              std::uint64_t{cpu::mmio_read<std::uint16_t>(common + common::queue_notify_off)} *
                  device.notify_multiplier;
    cpu::mmio_write<std::uint16_t>(common + common::queue_enable, 1);
    return true;
}

void Queue::post(std::uint16_t slot, std::span<const Buffer> chain) noexcept {
    const auto head = static_cast<std::uint16_t>(slot * chain_length);
    for (std::uint16_t i = 0; i < chain.size() && i < chain_length; ++i) {
        const bool more = i + 1U < chain.size();
        const auto flags = static_cast<std::uint16_t>((more ? flag_next : 0) |
                                                      (chain[i].device_writes ? flag_write : 0));
        const Descriptor descriptor{chain[i].address, chain[i].size, flags,
                                    static_cast<std::uint16_t>(head + i + 1)};
        *reinterpret_cast<Descriptor*>(memory_ + (head + i) * sizeof(Descriptor)) = descriptor;
    }
    cell<std::uint16_t>(memory_, avail_offset + 4 + avail_ % size * 2) = head;
    ++avail_;
}

void Queue::kick() noexcept {
    // x86 keeps the ring's stores in order; the compiler must, too (2.7.13.3).
    cpu::compiler_barrier();
    cell<std::uint16_t>(memory_, avail_offset + 2) = avail_;
    cpu::compiler_barrier();
    cpu::mmio_write<std::uint16_t>(notify_, index_);
}

bool Queue::take(std::uint16_t& slot, std::uint32_t& written) noexcept {
    if (cell<std::uint16_t>(memory_, used_offset + 2) == used_)
        return false;
    cpu::compiler_barrier();
    const std::size_t entry = used_offset + 4 + used_ % size * 8;
    const auto head = cell<std::uint32_t>(memory_, entry);
    written = cell<std::uint32_t>(memory_, entry + 4);
    ++used_;
    slot = static_cast<std::uint16_t>(head / chain_length % slots);
    return true;
}

}  // namespace masu::firmware::virtio

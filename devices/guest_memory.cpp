// Range checks and copies; the only place that turns a guest address into a host pointer.
#include "devices/guest_memory.hpp"

namespace masu {

std::uint64_t GuestMemory::total_bytes() const noexcept {
    std::uint64_t total = 0;
    for (const auto& region : regions_)
        total += region.bytes.size();
    return total;
}

std::optional<std::span<std::byte>> GuestMemory::slice(GuestAddress address,
                                                       std::uint64_t size) const noexcept {
    for (const auto& region : regions_) {
        if (address < region.start)
            continue;
        const std::uint64_t offset = address.value - region.start.value;
        if (offset >= region.bytes.size())
            continue;
        if (size > region.bytes.size() - offset)
            return std::nullopt;
        return region.bytes.subspan(offset, size);
    }
    return std::nullopt;
}

bool GuestMemory::read(GuestAddress from, std::span<std::byte> to) const noexcept {
    const auto bytes = slice(from, to.size());
    if (!bytes)
        return false;
    if (!to.empty())
        std::memcpy(to.data(), bytes->data(), to.size());
    return true;
}

bool GuestMemory::write(GuestAddress to, std::span<const std::byte> from) const noexcept {
    const auto bytes = slice(to, from.size());
    if (!bytes)
        return false;
    if (!from.empty())
        std::memcpy(bytes->data(), from.data(), from.size());
    wrote(bytes->data(), bytes->size());
    return true;
}

std::uint16_t* GuestMemory::ring_word(GuestAddress address) const noexcept {
    if (address.value % alignof(std::uint16_t) != 0)
        return nullptr;
    const auto bytes = slice(address, sizeof(std::uint16_t));
    // Regions are page-aligned on both sides, so guest alignment is host alignment.
    return bytes ? reinterpret_cast<std::uint16_t*>(bytes->data()) : nullptr;
}

}  // namespace masu

// Range table and dispatch.
#include "devices/bus.hpp"

#include <algorithm>
#include <mutex>

namespace masu {

Result<> Bus::insert(std::uint64_t base, std::uint64_t size, BusDevice& device, const char* name) {
    const std::unique_lock lock(mutex_);
    if (size == 0 || base + size < base)
        return fail("bus range of {} is empty or wraps", name);
    const auto next = ranges_.lower_bound(base);
    if (next != ranges_.end() && next->first < base + size)
        return fail("bus range of {} at {:#x} overlaps {}", name, base, next->second.name);
    if (next != ranges_.begin()) {
        const auto& [start, range] = *std::prev(next);
        if (start + range.size > base)
            return fail("bus range of {} at {:#x} overlaps {}", name, base, range.name);
    }
    ranges_.emplace(base, Range{size, &device, name});
    return {};
}

void Bus::remove(std::uint64_t base) {
    const std::unique_lock lock(mutex_);
    ranges_.erase(base);
}

Bus::Hit Bus::find(std::uint64_t address, std::size_t size) const {
    const std::shared_lock lock(mutex_);
    auto next = ranges_.upper_bound(address);
    if (next == ranges_.begin())
        return {nullptr, 0};
    const auto& [start, range] = *std::prev(next);
    const std::uint64_t offset = address - start;
    if (offset >= range.size || size > range.size - offset)
        return {nullptr, 0};
    return {range.device, offset};
}

bool Bus::read(std::uint64_t address, std::span<std::byte> data) const {
    std::ranges::fill(data, std::byte{0xff});
    const auto hit = find(address, data.size());
    if (hit.device == nullptr)
        return false;
    hit.device->read(hit.offset, data);
    return true;
}

bool Bus::write(std::uint64_t address, std::span<const std::byte> data) const {
    const auto hit = find(address, data.size());
    if (hit.device == nullptr)
        return false;
    hit.device->write(hit.offset, data);
    return true;
}

}  // namespace masu

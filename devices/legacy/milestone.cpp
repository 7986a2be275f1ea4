#include "devices/legacy/milestone.hpp"

namespace masu::legacy {

void MilestoneDevice::write(std::uint64_t offset, std::span<const std::byte> data) {
    if (offset != 0 || data.empty() || std::to_integer<std::uint8_t>(data[0]) != init_reached)
        return;
    if (!done_.exchange(true))
        reached_();
}

}  // namespace masu::legacy

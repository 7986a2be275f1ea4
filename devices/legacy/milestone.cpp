#include "devices/legacy/milestone.hpp"

namespace masu::legacy {

void MilestoneDevice::write(std::uint64_t offset, std::span<const std::byte> data) {
    if (offset != 0 || data.empty())
        return;
    const auto value = std::to_integer<std::uint8_t>(data[0]);
    if (value == init_reached && !done_.exchange(true))
        reached_();
    if (value >= first_firmware_event && firmware_event_) {
        const auto bit = std::uint32_t{1} << (value - first_firmware_event);
        if ((seen_.fetch_or(bit) & bit) == 0)
            firmware_event_(value);
    }
}

}  // namespace masu::legacy

#include "devices/legacy/ged.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace masu::legacy {

void GenericEventDevice::raise(GedEvent event) {
    pending_.fetch_or(std::to_underlying(event));
    line_.set(true);
    line_.set(false);
}

void GenericEventDevice::read(std::uint64_t offset, std::span<std::byte> data) {
    std::fill(data.begin(), data.end(), std::byte{0});
    // A narrower read would lose the events of the bytes it does not return.
    if (offset != 0 || data.size() < sizeof(std::uint32_t))
        return;
    const std::uint32_t events = pending_.exchange(0);
    std::memcpy(data.data(), &events, sizeof events);
}

void GenericEventDevice::write(std::uint64_t, std::span<const std::byte>) {}

}  // namespace masu::legacy

// What a device does about snapshots unless it says otherwise.
#include "devices/virtio/device.hpp"

namespace masu::virtio {

Result<SavedDevice> Device::save() {
    return fail(
        "devices of virtio type {} cannot be saved yet: start the VM without it to make "
        "snapshots",
        std::to_underlying(id()));
}

Result<> Device::restore(std::span<const std::byte> own) {
    if (!own.empty())
        return fail(
            "the snapshot holds {} bytes of state for a device of virtio type {}, which "
            "has none",
            own.size(), std::to_underlying(id()));
    return {};
}

}  // namespace masu::virtio

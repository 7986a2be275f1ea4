// The RNG protocol (UEFI 37.5) on the virtio entropy device.
#include "firmware/protocols/install.hpp"
#include "firmware/services/handles.hpp"
#include "firmware/virtio/rng.hpp"

namespace masu::firmware {

using efi::Status;

namespace {

Status EFIAPI get_info(efi::Rng*, std::uint64_t* size, efi::Guid* list) {
    if (size == nullptr)
        return Status::InvalidParameter;
    const bool fits = *size >= sizeof(efi::Guid);
    *size = sizeof(efi::Guid);
    if (!fits)
        return Status::BufferTooSmall;
    if (list == nullptr)
        return Status::InvalidParameter;
    *list = efi::guid::rng_algorithm_raw;
    return Status::Success;
}

Status EFIAPI get_rng(efi::Rng*, const efi::Guid* algorithm, std::uint64_t size,
                      std::uint8_t* to) {
    if (size == 0 || to == nullptr)
        return Status::InvalidParameter;
    if (algorithm != nullptr && !(*algorithm == efi::guid::rng_algorithm_raw))
        return Status::Unsupported;
    return virtio::random_bytes({reinterpret_cast<std::byte*>(to), static_cast<std::size_t>(size)})
               ? Status::Success
               : Status::DeviceError;
}

constinit efi::Rng rng = {.get_info = get_info, .get_rng = get_rng};

}  // namespace

void install_rng() noexcept {
    efi::Handle handle = nullptr;
    if (virtio::start_rng())
        (void)install_protocol(handle, efi::guid::rng, &rng);
}

}  // namespace masu::firmware

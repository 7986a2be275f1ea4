// Where LoadImage gets the bytes of an image: a file system or a LoadFile protocol.
#pragma once

#include <span>

#include "firmware/efi/protocols.hpp"

namespace masu::firmware {

// Pages of BootServicesData, given back by free_source().
struct ImageSource {
    std::byte* data = nullptr;
    std::uint64_t size = 0;
    efi::Handle device = nullptr;
    const efi::DevicePath* file_path = nullptr;  // the path's rest behind the device
};

[[nodiscard]] efi::Status read_source(const efi::DevicePath* path, bool boot_policy,
                                      ImageSource& source) noexcept;
void free_source(ImageSource& source) noexcept;

}  // namespace masu::firmware

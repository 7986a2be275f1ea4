// LoadImage, StartImage, Exit, UnloadImage (UEFI 7.4).
#pragma once

#include <span>

#include "firmware/efi/protocols.hpp"

namespace masu::firmware {

// A handle for the firmware itself, parent of what it starts. Once.
[[nodiscard]] efi::Handle firmware_image() noexcept;

// Loads an image from `source`, or from the file that `path` names; says on the console what is
// wrong with it. `path` may be null when there is a source.
[[nodiscard]] efi::Status load_image(efi::Handle parent, const efi::DevicePath* path,
                                     std::span<const std::byte> source, efi::Handle& image) noexcept;
[[nodiscard]] efi::Status start_image(efi::Handle image) noexcept;
// Only of an image that is not running.
efi::Status unload_image(efi::Handle image) noexcept;
// Text that an image finds as its command line; copied.
[[nodiscard]] bool set_load_options(efi::Handle image, std::span<const char16_t> text) noexcept;

// The name and base of the running image that `address` lies in; nullptr: none.
[[nodiscard]] const efi::LoadedImage* image_at(std::uint64_t address) noexcept;

void fill_image_services(efi::BootServices& table) noexcept;

}  // namespace masu::firmware

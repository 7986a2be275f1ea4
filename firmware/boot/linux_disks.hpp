// Disks without an EFI boot loader: boots what their own GRUB, BLS or extlinux configuration says.
#pragma once

#include <cstdint>
#include <span>

#include "firmware/boot_info.hpp"
#include "firmware/protocols/disks.hpp"

namespace masu::firmware {

// Enters the kernel, or comes back having said what was found and tried.
void boot_linux(std::span<Disk* const> disks, const BootInfo& info) noexcept;

}  // namespace masu::firmware

// Chooses what to boot: disk by disk, an EFI boot loader first, then what the disk's own Linux
// configuration says.
#pragma once

#include <cstdint>
#include <span>

#include "firmware/boot_info.hpp"
#include "firmware/protocols/disks.hpp"

namespace masu::firmware {

// Returns when nothing boots; the console then says what was tried.
void boot(std::span<Disk* const> disks, const BootInfo& info) noexcept;

}  // namespace masu::firmware

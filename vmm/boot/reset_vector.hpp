// The x86 reset vector, for guests that reboot by jumping to the BIOS.
#pragma once

#include "base/result.hpp"
#include "devices/guest_memory.hpp"

namespace masu::boot {

// Puts a few instructions at F000:FFF0 (layout::reset_vector) that write to the ACPI reset
// register. Linux needs them without "reboot=" on its command line: on a hardware-reduced machine
// it tries EFI's reset first, and where there is no EFI it falls through to the BIOS.
[[nodiscard]] Result<> install_reset_vector(const GuestMemory& memory);

}  // namespace masu::boot

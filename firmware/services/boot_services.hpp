// The boot services table, and its end.
#pragma once

#include "firmware/efi/types.hpp"

namespace masu::firmware {

// Fills the table and puts it into the system table. Once.
void init_boot_services() noexcept;

}  // namespace masu::firmware

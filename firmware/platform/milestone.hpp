// Tells the monitor how far the boot has come.
#pragma once

#include "firmware/boot_info.hpp"

namespace masu::firmware {

void init_milestones(std::uint16_t port) noexcept;
void milestone(FirmwareEvent event) noexcept;

}  // namespace masu::firmware

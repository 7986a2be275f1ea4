// Firmware boot: puts Masu's own firmware into guest memory, which then boots the guest's disks.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "devices/guest_memory.hpp"
#include "vmm/boot/cpu_state.hpp"

namespace masu::boot {

struct FirmwareBoot {
    std::string load_options;  // the boot loader's command line; empty: none
    bool boot_menu = false;
    unsigned boot_device = 0;  // from 1; 0: each disk in turn
};

// Loads into fresh (zeroed) memory at the top of the RAM below 4 GiB; the ACPI and SMBIOS tables are
// where layout.hpp says. Returns where the boot processor starts.
[[nodiscard]] Result<EntryState> load_firmware(const FirmwareBoot& boot,
                                               const GuestMemory& memory);

// After load_firmware(), once there is a vCPU to ask; 0: not known.
[[nodiscard]] Result<> tell_tsc_frequency(std::uint64_t khz, const GuestMemory& memory);

}  // namespace masu::boot

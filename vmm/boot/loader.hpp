// Direct boot: puts a kernel, its initrd and its command line into guest memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "devices/guest_memory.hpp"
#include "vmm/boot/cpu_state.hpp"

namespace masu::boot {

struct DirectBoot {
    std::string kernel_path;
    std::optional<std::string> initrd_path;
    std::string command_line;
    std::uint64_t rsdp = 0;  // guest address of the ACPI RSDP; 0: none
};

// Loads into fresh (zeroed) memory and returns where the boot processor starts; the tables for that
// entry are written too. Every error is one sentence that names the file and the remedy.
[[nodiscard]] Result<EntryState> load(const DirectBoot& boot, const GuestMemory& memory);

// A command line the kernel can take: no NUL or other control characters, and not longer than
// `limit` bytes (without the final NUL).
[[nodiscard]] Result<> check_command_line(std::string_view command_line, std::uint64_t limit);

}  // namespace masu::boot

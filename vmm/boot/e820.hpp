// The map of physical memory that a kernel is handed.
#pragma once

#include <cstdint>
#include <vector>

#include "devices/guest_memory.hpp"

namespace masu::boot {

enum class E820Type : std::uint32_t { Ram = 1, Reserved = 2 };

struct E820Entry {
    std::uint64_t start;
    std::uint64_t size;
    E820Type type;
};

// RAM around the legacy hole (0x9fc00 to 1 MiB, where the ACPI tables and SMBIOS lie) and the hole
// below 4 GiB; the PCI ECAM window as reserved, without which kernels do not use it. Ascending.
[[nodiscard]] std::vector<E820Entry> e820_map(const GuestMemory& memory);

}  // namespace masu::boot

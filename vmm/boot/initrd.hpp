// Where the initrd goes, and getting it there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.hpp"
#include "devices/guest_memory.hpp"

namespace masu::boot {

struct InitrdPlacement {
    std::uint64_t lowest = 0;        // the kernel's end
    std::uint64_t highest_byte = 0;  // initrd_addr_max: the last byte must not lie above
    bool above_4g = false;           // the kernel takes one there as well
};

// A place of `size` bytes, as high as allowed, at a page boundary; nullopt when none is free.
[[nodiscard]] std::optional<GuestAddress> place_initrd(std::uint64_t size,
                                                       const InitrdPlacement& placement,
                                                       const GuestMemory& memory);

struct LoadedInitrd {
    GuestAddress address;
    std::uint64_t size = 0;
};

// Reads the file into its place. Nullopt without a path.
[[nodiscard]] Result<std::optional<LoadedInitrd>> load_initrd(
    const std::optional<std::string>& path, const InitrdPlacement& placement,
    const GuestMemory& memory);

}  // namespace masu::boot

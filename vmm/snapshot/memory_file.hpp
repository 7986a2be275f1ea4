// Guest memory as a file: the regions one after another in guest-physical order, pages of zeros
// left out as holes.
#pragma once

#include <cstdint>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "vmm/kvm/guest_ram.hpp"

namespace masu::snapshot {

// Writes all of `ram` to the empty file `fd`, which gets its size, and syncs it. The bytes written,
// holes not counted. The guest and its devices stand still meanwhile.
[[nodiscard]] Result<std::uint64_t> write_memory(const kvm::GuestRam& ram, int fd,
                                                 const std::string& path);

// Opens a memory file and maps it copy-on-write; nothing is read. Refuses one of another size. The
// file must not change while any VM runs from it.
[[nodiscard]] Result<kvm::GuestRam> map_memory(const std::string& path, std::uint64_t size);

}  // namespace masu::snapshot

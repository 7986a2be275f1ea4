// Uncompressed ELF kernels, entered as PVH describes it
// (xen/include/public/arch-x86/hvm/start_info.h).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "vmm/boot/image_file.hpp"
#include "vmm/boot/loader.hpp"

namespace masu::boot {

// One PT_LOAD, checked against the file: offset + file_size lies in it, memory_size >= file_size.
struct ElfSegment {
    std::uint64_t offset = 0;
    std::uint64_t file_size = 0;
    std::uint64_t address = 0;  // guest-physical; below 2^63, and so is its end
    std::uint64_t memory_size = 0;
};

struct ElfKernel {
    std::vector<ElfSegment> segments;  // not empty
    std::uint32_t pvh_entry = 0;       // inside one of the segments
    std::uint64_t end = 0;             // of the highest segment
};

[[nodiscard]] Result<ElfKernel> parse_elf(const ImageFile& kernel);

[[nodiscard]] Result<EntryState> load_elf(const ImageFile& kernel, const DirectBoot& boot,
                                          const GuestMemory& memory);

}  // namespace masu::boot

// Linux's bzImage, by the 64-bit boot protocol (Documentation/arch/x86/boot.rst, 2.12 and later).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.hpp"
#include "vmm/boot/image_file.hpp"
#include "vmm/boot/loader.hpp"

namespace masu::boot {

// What the loader needs of the setup header, judged.
struct BzImage {
    std::uint64_t payload_offset = 0;  // in the file: the protected-mode kernel
    std::uint64_t payload_size = 0;
    std::uint64_t load_address = 0;  // pref_address
    std::uint64_t memory_size = 0;   // from load_address on, while the kernel unpacks itself
    std::uint64_t initrd_highest_byte = 0;
    std::uint32_t command_line_limit = 0;  // without the final NUL
    bool initrd_above_4g = false;
    std::array<std::byte, 0x290 - 0x1f1> setup_header{};  // as in the file, zeros behind its end
};

// `head` is the start of the file: at least 1 KiB, or all of a shorter one.
[[nodiscard]] Result<BzImage> parse_bzimage(std::span<const std::byte> head,
                                            std::uint64_t file_size, std::string_view name);

[[nodiscard]] Result<EntryState> load_bzimage(const ImageFile& kernel, const DirectBoot& boot,
                                              const GuestMemory& memory);

}  // namespace masu::boot

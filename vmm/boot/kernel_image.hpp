// Tells what kind of kernel a file is, or why it is none.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "base/result.hpp"

namespace masu::boot {

enum class KernelFormat {
    BzImage,  // Linux boot protocol: a distribution's vmlinuz
    Elf,      // an uncompressed vmlinux, entered by PVH
};

inline constexpr std::size_t kernel_head_size = 4096;

// Judges the first kernel_head_size bytes (fewer if the file is shorter). `name` begins the error,
// which says what the file is instead and what to give.
[[nodiscard]] Result<KernelFormat> detect_kernel(std::span<const std::byte> head,
                                                 std::string_view name);

}  // namespace masu::boot

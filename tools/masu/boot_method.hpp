// How a disk would boot, as far as its partition table and EFI partition tell.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "tools/masu/image_format.hpp"

namespace masu::cli {

enum class BootKind {
    Uefi,     // \EFI\BOOT\BOOTX64.EFI on an EFI system partition
    Menu,     // no such loader; the menu in its boot or root partition says what to start
    Unknown,  // nothing here says how: a bare file system, data, an installer
};

struct BootMethod {
    BootKind kind = BootKind::Unknown;
    std::string partition_table;  // "gpt", "mbr" or "none"
    std::string detail;           // for people: "EFI/BOOT/BOOTX64.EFI on partition 15"
};

// Looks at a disk of `size` bytes. Everything read is bounded; a damaged disk is Unknown, and only
// an error of `read` itself is an error.
[[nodiscard]] Result<BootMethod> detect_boot_method(const ReadAt& read, std::uint64_t size);

[[nodiscard]] std::string_view word_for(BootKind kind);  // "uefi", "menu", "unknown"
[[nodiscard]] BootKind boot_kind_from(std::string_view word);

}  // namespace masu::cli

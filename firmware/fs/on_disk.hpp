// What the file systems of Unix have in common on the disk.
#pragma once

#include <cstdint>
#include <span>

#include "firmware/fs/file_system.hpp"

namespace masu::firmware {

// An incompatible feature: whoever does not know one must not read.
struct Feature {
    std::uint32_t bit;
    const char* refusal;  // nullptr: we can read with it
};

// Refuses what is in `present` if it is refused by name, or not known.
[[nodiscard]] Result<> check_features(std::uint32_t present, std::span<const Feature> known,
                                      const char* unknown_refusal);

// S_IFMT's part of an inode's mode.
[[nodiscard]] FileType type_of_mode(std::uint16_t mode);

// The type byte of a directory entry: EXT4_FT_* and XFS_DIR3_FT_* have the same values.
[[nodiscard]] FileType type_of_entry(std::uint8_t type);

}  // namespace masu::firmware

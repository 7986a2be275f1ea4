// The copy-on-write overlay file: its layout, and how one is created and judged.
//
//   0             header, one block
//   bitmap_start  one bit per block of the disk, least significant first: set when the overlay
//                 holds the block, clear when the base does
//   data_start    block n of the disk at data_start + n * block size, sparse
//
// A bit is written only after the data it stands for is durable. Little-endian throughout.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.hpp"
#include "devices/block/disk.hpp"
#include "devices/block/file.hpp"

namespace masu::block {

inline constexpr std::uint64_t overlay_block = 4096;
inline constexpr std::uint64_t overlay_max_size = std::uint64_t{1} << 46;  // 64 TiB

// What an overlay remembers of its base, to notice when the base has changed.
struct BaseIdentity {
    std::uint64_t size = 0;
    std::uint64_t mtime_ns = 0;
    std::uint64_t fingerprint = 0;  // XXH64 over blocks sampled evenly
    bool operator==(const BaseIdentity&) const = default;
};

// The header on disk.
struct OverlayHeader {
    std::array<char, 8> magic;
    std::uint32_t version;
    std::uint32_t block_size;
    std::uint64_t virtual_size;
    std::uint64_t bitmap_start;
    std::uint64_t data_start;
    std::uint64_t base_size;
    std::uint64_t base_mtime_ns;
    std::uint64_t base_fingerprint;
    std::uint32_t base_path_size;
    std::array<char, 4016> base_path;  // absolute, for people and tools; not followed on opening
    std::array<char, 4> reserved;
    std::uint64_t checksum;  // XXH64 of everything before it
};
static_assert(sizeof(OverlayHeader) == overlay_block);

struct OverlayLayout {
    std::uint64_t virtual_size = 0;
    std::uint64_t bitmap_start = overlay_block;
    std::uint64_t data_start = 0;
    std::uint64_t file_size = 0;

    // `virtual_size`: 1 to overlay_max_size bytes.
    [[nodiscard]] static OverlayLayout of(std::uint64_t virtual_size) noexcept;
    [[nodiscard]] std::uint64_t bitmap_pages() const noexcept {
        return (data_start - bitmap_start) / overlay_block;
    }
};

// Header bytes for a new overlay.
[[nodiscard]] OverlayHeader make_overlay_header(std::uint64_t virtual_size,
                                                const BaseIdentity& base,
                                                const std::string& base_path);

// Judges a header read from `path`, an overlay file of `file_size` bytes on the base `base`.
[[nodiscard]] Result<OverlayLayout> check_overlay_header(const OverlayHeader& header,
                                                         std::uint64_t file_size,
                                                         const BaseIdentity& base,
                                                         const std::string& path);

// Samples the base, through the page cache.
[[nodiscard]] Result<std::uint64_t> fingerprint(const File& base);

// Through the page cache, whatever the engine: as it is there once it was written.
[[nodiscard]] Result<std::unique_ptr<OverlayHeader>> read_overlay_header(const File& store);

// Creates the file at `path`; one that came into being meanwhile is kept. Synced, it is there whole
// or not at all, also after a crash of the host; otherwise a crash may leave half of it.
[[nodiscard]] Result<> create_overlay_file(const std::string& path, const OverlayHeader& header,
                                           bool synced = true);

}  // namespace masu::block

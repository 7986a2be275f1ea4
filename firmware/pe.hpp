// PE32+ images (Microsoft's PE specification, UEFI 2.1.1): judged, laid out and relocated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "firmware/result.hpp"

namespace masu::firmware::pe {

enum class Subsystem : std::uint16_t { Application = 10, BootDriver = 11, RuntimeDriver = 12 };

struct Image {
    std::uint64_t preferred_base = 0;
    std::uint32_t size = 0;  // in memory
    std::uint32_t header_size = 0;
    std::uint32_t entry = 0;  // from the image's start
    Subsystem subsystem = Subsystem::Application;
    std::uint32_t section_table = 0;  // in the file
    std::uint32_t section_count = 0;
    std::uint32_t relocations = 0;  // in memory, from the image's start
    std::uint32_t relocations_size = 0;
    bool relocatable = true;
};

inline constexpr std::uint32_t max_image_size = 1U << 30;

// Judges the headers and the bounds of every section. Corrupt: no image, or a damaged one;
// Unsupported: one for another machine or purpose.
[[nodiscard]] Result<Image> parse(std::span<const std::byte> file) noexcept;

// Copies headers and sections into `memory` (image.size bytes) and relocates them for running at
// `address`. `file` is the one that was parsed.
[[nodiscard]] Result<> load(const Image& image, std::span<const std::byte> file,
                            std::span<std::byte> memory, std::uint64_t address) noexcept;

}  // namespace masu::firmware::pe

#include "firmware/pe.hpp"

#include <algorithm>
#include <cstring>

#include "firmware/bytes.hpp"

namespace masu::firmware::pe {
namespace {

constexpr std::uint16_t machine_x64 = 0x8664;
constexpr std::uint16_t magic_pe32_plus = 0x20b;
constexpr std::uint16_t relocations_stripped = 1;
constexpr std::uint32_t section_header_size = 40;
constexpr std::uint32_t max_sections = 256;
// Offsets in the COFF header behind "PE\0\0" and in the optional header.
constexpr std::uint32_t coff_size = 20;
constexpr std::uint32_t optional_fixed_size = 112;
constexpr std::uint32_t relocation_directory = 5;

struct Section {
    std::uint32_t virtual_size;
    std::uint32_t address;
    std::uint32_t raw_size;
    std::uint32_t raw_offset;
};

Section section_at(const Image& image, std::span<const std::byte> file, std::uint32_t index) noexcept {
    const std::size_t at = image.section_table + std::size_t{index} * section_header_size;
    return {load_le<std::uint32_t>(file, at + 8), load_le<std::uint32_t>(file, at + 12),
            load_le<std::uint32_t>(file, at + 16), load_le<std::uint32_t>(file, at + 20)};
}

// Bytes of the file that a section takes: no more than its size in memory, when it names one.
std::uint32_t copied(const Section& section) noexcept {
    return section.virtual_size == 0 ? section.raw_size
                                     : std::min(section.raw_size, section.virtual_size);
}

bool inside(std::uint64_t offset, std::uint64_t size, std::uint64_t whole) noexcept {
    return offset <= whole && size <= whole - offset;
}

Result<> check_sections(const Image& image, std::span<const std::byte> file) noexcept {
    for (std::uint32_t i = 0; i < image.section_count; ++i) {
        const auto section = section_at(image, file, i);
        const auto memory_size = std::max(section.virtual_size, copied(section));
        if (!inside(section.address, memory_size, image.size) ||
            (memory_size != 0 && section.address < image.header_size))
            return fail(ErrorCode::Corrupt, "a section lies outside of the image", i);
        if (copied(section) != 0 && !inside(section.raw_offset, copied(section), file.size()))
            return fail(ErrorCode::Corrupt, "the file ends before a section's contents do", i);
    }
    return {};
}

Result<> relocate_block(std::span<std::byte> memory, std::uint32_t page,
                        std::span<const std::byte> entries, std::uint64_t delta) noexcept {
    enum Kind : unsigned { Absolute = 0, HighLow = 3, Dir64 = 10 };
    for (std::size_t i = 0; i + 1 < entries.size(); i += 2) {
        const auto entry = load_le<std::uint16_t>(entries, i);
        const unsigned kind = entry >> 12;
        const std::uint64_t at = std::uint64_t{page} + (entry & 0xfff);
        const std::size_t width = kind == Dir64 ? 8 : 4;
        if (kind == Absolute)
            continue;
        if (kind != Dir64 && kind != HighLow)
            return fail(ErrorCode::Unsupported, "a relocation of an unknown kind", kind);
        if (!inside(at, width, memory.size()))
            return fail(ErrorCode::Corrupt, "a relocation lies outside of the image", at);
        if (kind == Dir64) {
            const auto value = load_le<std::uint64_t>(memory, at) + delta;
            std::memcpy(memory.data() + at, &value, sizeof value);
        } else {
            const auto value = load_le<std::uint32_t>(memory, at) + static_cast<std::uint32_t>(delta);
            std::memcpy(memory.data() + at, &value, sizeof value);
        }
    }
    return {};
}

Result<> relocate(const Image& image, std::span<std::byte> memory, std::uint64_t delta) noexcept {
    constexpr std::uint32_t head = 8;
    std::uint32_t at = 0;
    while (image.relocations_size - at >= head) {
        const std::size_t block = std::size_t{image.relocations} + at;
        const auto page = load_le<std::uint32_t>(memory, block);
        const auto size = load_le<std::uint32_t>(memory, block + 4);
        if (size == 0)
            break;  // padding
        if (size < head || size > image.relocations_size - at)
            return fail(ErrorCode::Corrupt, "a block of relocations has an impossible size", size);
        TRY(relocate_block(memory, page, slice(memory, block + head, size - head), delta));
        at += size;
    }
    return {};
}

}  // namespace

Result<Image> parse(std::span<const std::byte> file) noexcept {
    if (file.size() < 64 || load_le<std::uint16_t>(file, 0) != 0x5a4d)
        return fail(ErrorCode::Corrupt, "it is no PE image (no MZ at its start)");
    const std::size_t pe = load_le<std::uint32_t>(file, 0x3c);
    if (!inside(pe, 4 + coff_size + optional_fixed_size, file.size()) ||
        load_le<std::uint32_t>(file, pe) != 0x4550)
        return fail(ErrorCode::Corrupt, "it has no PE header");
    const std::size_t coff = pe + 4;
    const std::size_t optional = coff + coff_size;
    if (const auto machine = load_le<std::uint16_t>(file, coff); machine != machine_x64)
        return fail(ErrorCode::Unsupported, "it is built for another machine than x86-64", machine);
    const std::uint32_t optional_size = load_le<std::uint16_t>(file, coff + 16);
    if (optional_size < optional_fixed_size ||
        load_le<std::uint16_t>(file, optional) != magic_pe32_plus)
        return fail(ErrorCode::Unsupported, "it is no 64-bit image (PE32+)");

    Image image;
    image.entry = load_le<std::uint32_t>(file, optional + 16);
    image.preferred_base = load_le<std::uint64_t>(file, optional + 24);
    image.size = load_le<std::uint32_t>(file, optional + 56);
    image.header_size = load_le<std::uint32_t>(file, optional + 60);
    image.subsystem = static_cast<Subsystem>(load_le<std::uint16_t>(file, optional + 68));
    image.relocatable = (load_le<std::uint16_t>(file, coff + 18) & relocations_stripped) == 0;
    if (image.subsystem != Subsystem::Application && image.subsystem != Subsystem::BootDriver &&
        image.subsystem != Subsystem::RuntimeDriver)
        return fail(ErrorCode::Unsupported, "it is no EFI program (another subsystem)",
                    static_cast<std::uint64_t>(image.subsystem));
    if (image.size == 0 || image.size > max_image_size)
        return fail(ErrorCode::Corrupt, "its size in memory is impossible", image.size);
    if (image.header_size > image.size || image.header_size > file.size())
        return fail(ErrorCode::Corrupt, "its headers are larger than the file", image.header_size);
    if (image.entry >= image.size)
        return fail(ErrorCode::Corrupt, "its entry point lies outside of it", image.entry);

    image.section_count = load_le<std::uint16_t>(file, coff + 2);
    const std::size_t sections = optional + optional_size;
    if (image.section_count > max_sections ||
        !inside(sections, std::size_t{image.section_count} * section_header_size, file.size()))
        return fail(ErrorCode::Corrupt, "its section table lies outside of the file",
                    image.section_count);
    image.section_table = static_cast<std::uint32_t>(sections);
    TRY(check_sections(image, file));

    const auto directories = load_le<std::uint32_t>(file, optional + 108);
    const std::size_t directory = optional_fixed_size + relocation_directory * 8;
    if (directories > relocation_directory && directory + 8 <= optional_size) {
        image.relocations = load_le<std::uint32_t>(file, optional + directory);
        image.relocations_size = load_le<std::uint32_t>(file, optional + directory + 4);
        if (!inside(image.relocations, image.relocations_size, image.size))
            return fail(ErrorCode::Corrupt, "its relocations lie outside of it");
    }
    return image;
}

Result<> load(const Image& image, std::span<const std::byte> file, std::span<std::byte> memory,
              std::uint64_t address) noexcept {
    if (memory.size() < image.size || file.size() < image.header_size)
        return fail(ErrorCode::Invalid, "too little memory for the image");
    memory = memory.first(image.size);
    std::memset(memory.data(), 0, memory.size());
    std::memcpy(memory.data(), file.data(), image.header_size);
    TRY(check_sections(image, file));
    for (std::uint32_t i = 0; i < image.section_count; ++i) {
        const auto section = section_at(image, file, i);
        if (copied(section) != 0)
            std::memcpy(memory.data() + section.address, file.data() + section.raw_offset,
                        copied(section));
    }
    const std::uint64_t delta = address - image.preferred_base;
    if (delta == 0)
        return {};
    if (!image.relocatable)
        return fail(ErrorCode::Unsupported, "it runs at one address only, and that is taken",
                    image.preferred_base);
    return relocate(image, memory, delta);
}

}  // namespace masu::firmware::pe

// Directories of xfs: inside the inode, in one block, or in many (leaf, node and B+tree forms,
// whose hash indexes are passed over: the entries are read linearly).
#include <algorithm>
#include <array>

#include "firmware/bytes.hpp"
#include "firmware/fs/on_disk.hpp"
#include "firmware/fs/xfs.hpp"

namespace masu::firmware {

namespace {

constexpr std::uint64_t max_directory = std::uint64_t{64} << 20;

// The part of a directory block that holds entries: [first, second). Empty when it is no such
// block.
struct EntryRange {
    std::size_t first = 0;
    std::size_t end = 0;
};

EntryRange entries_of(std::span<const std::byte> block) {
    constexpr std::uint32_t block5 = 0x5844'4233, data5 = 0x5844'4433;  // XDB3, XDD3
    constexpr std::uint32_t block4 = 0x5844'3242, data4 = 0x5844'3244;  // XD2B, XD2D
    const auto magic = load_be<std::uint32_t>(block, 0);
    switch (magic) {
        case data5:
            return {64, block.size()};
        case data4:
            return {16, block.size()};
        case block5:
        case block4: {
            // The hash index is at the end, its length last but one.
            const std::size_t index = load_be<std::uint32_t>(block, block.size() - 8);
            const std::size_t first = magic == block5 ? 64 : 16;
            if (index > (block.size() - first - 8) / 8)
                return {};
            return {first, block.size() - 8 - index * 8};
        }
        default:
            return {};
    }
}

}  // namespace

// A directory block, or, of a directory inside its inode, the fork. The last one is kept, since
// entries are asked for one by one. Holes are empty.
Result<std::span<const std::byte>> XfsFileSystem::load_segment(const Inode& directory,
                                                               std::uint64_t index) noexcept {
    if (block_inode_ == directory.number && block_index_ == index && block_used_ != 0)
        return block_.first(block_used_);
    block_inode_ = 0;
    if (directory.format == Format::Local) {
        block_used_ = std::min<std::uint64_t>(directory.size, directory.fork_size);
        TRY(volume_.read(directory.fork_offset, block_.first(block_used_)));
    } else {
        const std::uint64_t offset = index * geometry_.directory_block_size;
        block_used_ = geometry_.directory_block_size;
        const Extent extent = TRY(map(directory, offset));
        if (extent.hole)
            block_used_ = 0;
        TRY(read_bytes(directory, offset, block_.first(block_used_)));
    }
    block_inode_ = directory.number;
    block_index_ = index;
    return block_.first(block_used_);
}

// Inside the inode: count, count of 8-byte numbers, parent, then the entries (length, tag, name,
// type, number). "." and ".." are not among them. The cursor is the offset in the fork.
Result<bool> XfsFileSystem::next_short(std::span<const std::byte> fork, std::uint64_t& cursor,
                                       RawEntry& entry) const noexcept {
    const std::size_t number_size = load_le<std::uint8_t>(fork, 1) != 0 ? 8 : 4;
    const std::size_t first = 2 + number_size;
    const std::size_t at = static_cast<std::size_t>(std::max<std::uint64_t>(cursor, first));
    if (at >= fork.size())
        return false;
    const std::size_t name_size = load_le<std::uint8_t>(fork, at);
    const std::size_t type_size = geometry_.file_types ? 1 : 0;
    const std::size_t number = at + 3 + name_size + type_size;
    if (name_size == 0 || number + number_size > fork.size())
        return fail(ErrorCode::Corrupt, "an xfs directory is damaged");
    cursor = number + number_size;
    entry = {.inode = number_size == 8 ? load_be<std::uint64_t>(fork, number)
                                       : load_be<std::uint32_t>(fork, number),
             .type = type_size == 0 ? std::uint8_t{0} : load_le<std::uint8_t>(fork, number - 1),
             .name = {reinterpret_cast<const char*>(fork.data()) + at + 3, name_size}};
    return true;
}

Result<bool> XfsFileSystem::next_raw(const Inode& directory, std::uint64_t& cursor,
                                     RawEntry& entry) noexcept {
    if (directory.type != FileType::Directory)
        return fail(ErrorCode::NotDirectory, "it is no directory", directory.number);
    if (directory.format == Format::Local)
        return next_short(TRY(load_segment(directory, 0)), cursor, entry);
    if (directory.size > max_directory)
        return fail(ErrorCode::TooLarge, "a directory is larger than 64 MiB", directory.size);
    const std::uint64_t block_size = geometry_.directory_block_size;
    const auto damaged = [&] {
        return fail(ErrorCode::Corrupt, "an xfs directory is damaged", directory.number);
    };
    while (cursor < directory.size) {
        const auto block = TRY(load_segment(directory, cursor / block_size));
        const std::uint64_t next_block = (cursor / block_size + 1) * block_size;
        if (block.empty()) {
            cursor = next_block;
            continue;
        }
        const EntryRange range = entries_of(block);
        if (range.end == 0)
            return damaged();
        const std::size_t at = std::max<std::size_t>(cursor % block_size, range.first);
        if (at + 8 > range.end) {
            cursor = next_block;
            continue;
        }
        constexpr std::uint16_t unused = 0xffff;
        std::size_t length = 0;
        if (load_be<std::uint16_t>(block, at) == unused) {
            length = load_be<std::uint16_t>(block, at + 2);
        } else {
            const std::size_t name_size = load_le<std::uint8_t>(block, at + 8);
            const std::size_t type_size = geometry_.file_types ? 1 : 0;
            length = (8 + 1 + name_size + type_size + 2 + 7) / 8 * 8;
            if (name_size == 0 || at + length > range.end)
                return damaged();
            entry = {.inode = load_be<std::uint64_t>(block, at),
                     .type = type_size == 0 ? std::uint8_t{0}
                                            : load_le<std::uint8_t>(block, at + 9 + name_size),
                     .name = {reinterpret_cast<const char*>(block.data()) + at + 9, name_size}};
            cursor = cursor / block_size * block_size + at + length;
            return true;
        }
        if (length == 0 || length % 8 != 0 || at + length > range.end)
            return damaged();
        cursor = cursor / block_size * block_size + at + length;
    }
    return false;
}

Result<bool> XfsFileSystem::next(const Node& directory, std::uint64_t& cursor,
                                 DirectoryEntry& entry) noexcept {
    const Inode inode = TRY(read_inode(directory.id));
    RawEntry raw;
    do {
        if (!TRY(next_raw(inode, cursor, raw)))
            return false;
    } while (raw.name == "." || raw.name == "..");
    entry.node = {.id = raw.inode};
    entry.type = type_of_entry(raw.type);
    entry.name_size = raw.name.size();
    std::ranges::copy(raw.name, entry.name_bytes.begin());
    return true;
}

Result<Node> XfsFileSystem::lookup(const Node& directory, std::string_view name) noexcept {
    const Inode inode = TRY(read_inode(directory.id));
    if (name == ".")
        return directory;
    if (name == ".." && inode.type == FileType::Directory && inode.format == Format::Local) {
        const auto fork = TRY(load_segment(inode, 0));
        return Node{.id = load_le<std::uint8_t>(fork, 1) != 0 ? load_be<std::uint64_t>(fork, 2)
                                                              : load_be<std::uint32_t>(fork, 2)};
    }
    RawEntry raw;
    for (std::uint64_t cursor = 0; TRY(next_raw(inode, cursor, raw));)
        if (raw.name == name)
            return Node{.id = raw.inode};
    return fail(ErrorCode::NotFound, "there is no such file");
}

}  // namespace masu::firmware

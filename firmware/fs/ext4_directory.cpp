// Directories of ext4. Hashed ones (dir_index) are read linearly too: their index blocks look like
// empty ones.
#include <algorithm>
#include <array>

#include "firmware/bytes.hpp"
#include "firmware/fs/ext4.hpp"
#include "firmware/fs/on_disk.hpp"

namespace masu::firmware {

namespace {

constexpr std::uint32_t flag_inline = 0x1000'0000;
constexpr std::uint64_t max_directory = std::uint64_t{64} << 20;
constexpr std::size_t header_size = 8;
// An inline directory: its parent's number, entries in what is left of i_block, then more entries.
constexpr std::uint64_t inline_first = 4;
constexpr std::uint64_t inline_second = 60;

bool is_dot(std::string_view name) {
    return name == "." || name == "..";
}

}  // namespace

// The run of entries that holds `cursor`, and where it starts; empty at the end and in holes. The
// last one is kept, since entries are asked for one by one.
Result<std::span<const std::byte>> Ext4FileSystem::load_segment(const Inode& directory,
                                                                std::uint64_t& start,
                                                                std::uint64_t cursor) noexcept {
    std::uint64_t size = geometry_.block_size;
    start = cursor / size * size;
    if ((directory.flags & flag_inline) != 0) {
        start = cursor < inline_second ? inline_first : inline_second;
        size = cursor < inline_second ? inline_second - inline_first : geometry_.inode_size;
    }
    if (directory.size <= start)
        return std::span<const std::byte>{};
    const auto used = static_cast<std::size_t>(std::min(size, directory.size - start));
    if (block_inode_ == directory.number && block_start_ == start && block_used_ == used)
        return block_.first(used);
    block_inode_ = 0;
    TRY(read_bytes(directory, start, block_.first(used)));
    block_inode_ = directory.number;
    block_start_ = start;
    block_used_ = used;
    return block_.first(used);
}

Result<bool> Ext4FileSystem::next_raw(const Inode& directory, std::uint64_t& cursor,
                                      RawEntry& entry) noexcept {
    if (directory.type != FileType::Directory)
        return fail(ErrorCode::NotDirectory, "it is no directory", directory.number);
    if (directory.size > max_directory)
        return fail(ErrorCode::TooLarge, "a directory is larger than 64 MiB", directory.size);
    if ((directory.flags & flag_inline) != 0)
        cursor = std::max(cursor, inline_first);
    while (cursor < directory.size) {
        std::uint64_t start = 0;
        const auto bytes = TRY(load_segment(directory, start, cursor));
        if (cursor - start >= bytes.size())
            return false;
        const std::size_t at = static_cast<std::size_t>(cursor - start);
        const std::size_t left = bytes.size() - at;
        std::size_t length = load_le<std::uint16_t>(bytes, at + 4);
        const auto inode = load_le<std::uint32_t>(bytes, at);
        // In blocks of 64 KiB the whole block's length does not fit.
        if (geometry_.block_size == 65536 && (length == 0xffff || length == 0))
            length = 65536;
        if (length == 0 && inode == 0) {
            cursor = start + bytes.size();  // a hole, or the unused end of inline entries
            continue;
        }
        const std::size_t name_size = load_le<std::uint8_t>(bytes, at + 6);
        if (length < header_size || length > left || length % 4 != 0 ||
            header_size + name_size > length)
            return fail(ErrorCode::Corrupt, "an ext4 directory is damaged", directory.number);
        cursor += length;
        if (inode == 0)
            continue;
        entry = {
            .inode = inode,
            .type = load_le<std::uint8_t>(bytes, at + 7),
            .name = {reinterpret_cast<const char*>(bytes.data()) + at + header_size, name_size}};
        return true;
    }
    return false;
}

Result<bool> Ext4FileSystem::next(const Node& directory, std::uint64_t& cursor,
                                  DirectoryEntry& entry) noexcept {
    const Inode inode = TRY(read_inode(directory.id));
    RawEntry raw;
    do {
        if (!TRY(next_raw(inode, cursor, raw)))
            return false;
    } while (is_dot(raw.name));
    entry.node = {.id = raw.inode};
    // Without the feature "filetype" the byte is the name length's high half.
    constexpr std::uint32_t incompatible_file_types = 0x2;
    entry.type = (geometry_.incompatible & incompatible_file_types) != 0 ? type_of_entry(raw.type)
                                                                         : FileType::Other;
    entry.name_size = raw.name.size();
    std::ranges::copy(raw.name, entry.name_bytes.begin());
    return true;
}

Result<Node> Ext4FileSystem::lookup(const Node& directory, std::string_view name) noexcept {
    const Inode inode = TRY(read_inode(directory.id));
    if (name == ".")
        return directory;
    if (name == ".." && (inode.flags & flag_inline) != 0)
        return Node{.id = load_le<std::uint32_t>(inode.block, 0)};
    RawEntry raw;
    for (std::uint64_t cursor = 0; TRY(next_raw(inode, cursor, raw));)
        if (raw.name == name)
            return Node{.id = raw.inode};
    return fail(ErrorCode::NotFound, "there is no such file");
}

}  // namespace masu::firmware

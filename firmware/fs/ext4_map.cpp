// Where the bytes of an ext4 file lie: extent trees, block pointers, data inside the inode.
#include <algorithm>
#include <array>

#include "firmware/bytes.hpp"
#include "firmware/fs/ext4.hpp"

namespace masu::firmware {

namespace {

constexpr std::uint32_t flag_extents = 0x8'0000;
constexpr std::uint32_t flag_inline = 0x1000'0000;
constexpr std::size_t extent_size = 12;
constexpr unsigned max_depth = 5;
constexpr std::uint16_t longest_written = 32768;
constexpr std::uint64_t last_block = std::uint64_t{1}
                                     << 32;  // extents count file blocks in 32 bits

constexpr std::size_t inline_in_block = 60;

}  // namespace

Result<Extent> Ext4FileSystem::map(const Inode& inode, std::uint64_t offset,
                                   std::uint64_t wanted) noexcept {
    if ((inode.flags & flag_inline) != 0)
        return map_inline(inode, offset);
    if ((inode.flags & flag_extents) != 0)
        return map_extents(inode, offset);
    return map_indirect(inode, offset, wanted);
}

// The first 60 bytes lie in i_block, the rest in the extended attribute "system.data" within the
// inode; what neither has is zeros.
Result<Extent> Ext4FileSystem::map_inline(const Inode& inode, std::uint64_t offset) noexcept {
    if (offset < inline_in_block)
        return Extent{.disk_offset = inode.disk_offset + 0x28 + offset,
                      .length = inline_in_block - offset};
    const Extent zeros{.length = ~std::uint64_t{0} - offset, .hole = true};
    std::array<std::byte, 20> raw{};
    TRY(volume_.read(inode.disk_offset + 0x80, std::span(raw).first(4)));
    const std::size_t header = 0x80 + load_le<std::uint16_t>(raw, 0);
    if (header + 4 > geometry_.inode_size)
        return zeros;
    TRY(volume_.read(inode.disk_offset + header, std::span(raw).first(4)));
    if (load_le<std::uint32_t>(raw, 0) != 0xea02'0000)
        return zeros;
    // Each entry takes at least 16 bytes, so that the walk ends.
    for (std::size_t at = header + 4; at + raw.size() <= geometry_.inode_size;) {
        TRY(volume_.read(inode.disk_offset + at, raw));
        if (load_le<std::uint32_t>(raw, 0) == 0)
            break;
        const auto name_size = load_le<std::uint8_t>(raw, 0);
        const auto name_index = load_le<std::uint8_t>(raw, 1);
        constexpr std::uint8_t index_system = 7;
        const bool is_data = name_index == index_system && name_size == 4 &&
                             load_le<std::uint32_t>(raw, 16) == 0x6174'6164;  // "data"
        if (!is_data) {
            at += (16 + std::size_t{name_size} + 3) / 4 * 4;
            continue;
        }
        const std::uint64_t value = header + 4 + load_le<std::uint16_t>(raw, 2);
        const std::uint64_t size = load_le<std::uint32_t>(raw, 8);
        if (load_le<std::uint32_t>(raw, 4) != 0 || size > geometry_.inode_size ||
            value + size > geometry_.inode_size)
            return fail(ErrorCode::Corrupt, "an ext4 inode's inline data lies outside it",
                        inode.number);
        const std::uint64_t within = offset - inline_in_block;
        if (within >= size)
            return zeros;
        return Extent{.disk_offset = inode.disk_offset + value + within, .length = size - within};
    }
    return zeros;
}

// Down the tree by the last entry that does not start behind the block looked for; only the entries
// compared are read. What follows the entry bounds a hole.
Result<Extent> Ext4FileSystem::map_extents(const Inode& inode, std::uint64_t offset) noexcept {
    const std::uint64_t block_size = geometry_.block_size;
    const std::uint64_t wanted = offset / block_size;
    const std::uint64_t within = offset % block_size;
    if (wanted >= last_block)
        return fail(ErrorCode::Corrupt, "an ext4 file is larger than its extents can map",
                    inode.number);
    std::uint64_t node = inode.disk_offset + 0x28;
    std::uint64_t node_size = inode.block.size();
    std::uint64_t limit = last_block;
    std::array<std::byte, extent_size> raw{};
    unsigned depth = 0;
    for (unsigned level = 0; level <= max_depth; ++level) {
        TRY(volume_.read(node, raw));
        const auto here = load_le<std::uint16_t>(raw, 6);
        const std::size_t count = load_le<std::uint16_t>(raw, 2);
        if (load_le<std::uint16_t>(raw, 0) != 0xf30a || here > max_depth ||
            (level != 0 && here + 1U != depth) || (count + 1) * extent_size > node_size)
            return fail(ErrorCode::Corrupt, "an ext4 extent tree is damaged", inode.number);
        depth = here;
        const auto load = [&](std::size_t index) {
            return volume_.read(node + (index + 1) * extent_size, raw);
        };
        std::size_t low = 0;  // entries [0, low) start at or before the block
        for (std::size_t high = count; low < high;) {
            const std::size_t middle = (low + high) / 2;
            TRY(load(middle));
            if (load_le<std::uint32_t>(raw, 0) <= wanted)
                low = middle + 1;
            else
                high = middle;
        }
        if (low < count) {
            TRY(load(low));
            const std::uint64_t next = load_le<std::uint32_t>(raw, 0);
            if (next > wanted)
                limit = std::min(limit, next);
        }
        const Extent hole{.length = (limit - wanted) * block_size - within, .hole = true};
        if (low == 0)
            return hole;
        TRY(load(low - 1));
        const std::uint64_t first = load_le<std::uint32_t>(raw, 0);
        if (depth != 0) {
            const std::uint64_t child = load_le<std::uint32_t>(raw, 4) |
                                        std::uint64_t{load_le<std::uint16_t>(raw, 8)} << 32;
            if (child >= geometry_.block_count)
                return fail(ErrorCode::Corrupt, "an ext4 extent lies outside the file system",
                            child);
            node = child * block_size;
            node_size = block_size;
            continue;
        }
        const auto raw_length = load_le<std::uint16_t>(raw, 4);
        const bool unwritten = raw_length > longest_written;
        const std::uint64_t length = unwritten ? raw_length - longest_written : raw_length;
        const std::uint64_t start =
            load_le<std::uint32_t>(raw, 8) | std::uint64_t{load_le<std::uint16_t>(raw, 6)} << 32;
        if (first > wanted || wanted - first >= length)
            return hole;
        if (start >= geometry_.block_count || length > geometry_.block_count - start)
            return fail(ErrorCode::Corrupt, "an ext4 extent lies outside the file system", start);
        return Extent{.disk_offset = (start + wanted - first) * block_size + within,
                      .length = (length - (wanted - first)) * block_size - within,
                      .hole = unwritten};
    }
    return fail(ErrorCode::Corrupt, "an ext4 extent tree is too deep", inode.number);
}

// The block that holds a file's block, 0 for a hole: 12 direct pointers, then one tree each of one,
// two and three levels.
Result<std::uint64_t> Ext4FileSystem::indirect_block(const Inode& inode,
                                                     std::uint64_t index) noexcept {
    constexpr std::uint64_t direct = 12;
    if (index < direct)
        return load_le<std::uint32_t>(inode.block, index * 4);
    index -= direct;
    const std::uint64_t per_block = geometry_.block_size / 4;
    std::uint64_t span = per_block;
    for (unsigned levels = 1; levels <= 3; ++levels, span *= per_block) {
        if (index >= span) {
            index -= span;
            continue;
        }
        std::uint64_t block = load_le<std::uint32_t>(inode.block, (direct + levels - 1) * 4);
        for (unsigned level = 0; level < levels && block != 0; ++level) {
            span /= per_block;
            std::array<std::byte, 4> raw{};
            TRY(volume_.read(block * geometry_.block_size + index / span * 4, raw));
            block = load_le<std::uint32_t>(raw, 0);
            index %= span;
        }
        return block;
    }
    return fail(ErrorCode::Corrupt, "an ext4 file is larger than its pointers can map",
                inode.number);
}

Result<Extent> Ext4FileSystem::map_indirect(const Inode& inode, std::uint64_t offset,
                                            std::uint64_t wanted) noexcept {
    const std::uint64_t block_size = geometry_.block_size;
    const std::uint64_t within = offset % block_size;
    std::uint64_t index = offset / block_size;
    const std::uint64_t first = TRY(indirect_block(inode, index));
    if (first >= geometry_.block_count)
        return fail(ErrorCode::Corrupt, "an ext4 file's block lies outside the file system", first);
    Extent extent{.disk_offset = first * block_size + within,
                  .length = block_size - within,
                  .hole = first == 0};
    for (std::uint64_t count = 1; extent.length < wanted; ++count) {
        const auto next = indirect_block(inode, ++index);
        if (!next || *next != (first == 0 ? 0 : first + count) || *next >= geometry_.block_count)
            break;
        extent.length += block_size;
    }
    return extent;
}

}  // namespace masu::firmware

// Where the bytes of an xfs file lie: extent lists in the inode, and B+trees of them.
#include <algorithm>
#include <array>

#include "firmware/bytes.hpp"
#include "firmware/fs/xfs.hpp"

namespace masu::firmware {

namespace {

constexpr std::uint64_t record_size = 16;
constexpr std::uint64_t max_file_block = std::uint64_t{1} << 54;
constexpr unsigned max_levels = 10;

// A hole of that many blocks, cut to what 64 bits of bytes can count.
Extent make_hole(std::uint64_t blocks, std::uint64_t block_size, std::uint64_t within) {
    constexpr std::uint64_t most = std::uint64_t{1} << 32;
    return {.length = std::min(blocks, most) * block_size - within, .hole = true};
}

}  // namespace

// A record is 128 bits, most significant first: unwritten 1, file block 54, start 52, count 21.
Result<XfsFileSystem::Record> XfsFileSystem::read_record(std::uint64_t at) noexcept {
    std::array<std::byte, record_size> raw;
    TRY(volume_.read(at, raw));
    const auto high = load_be<std::uint64_t>(raw, 0);
    const auto low = load_be<std::uint64_t>(raw, 8);
    return Record{.file_block = (high & ~(std::uint64_t{1} << 63)) >> 9,
                  .start = (high & 0x1ff) << 43 | low >> 21,
                  .count = low & 0x1f'ffff,
                  .unwritten = high >> 63 != 0};
}

Result<Extent> XfsFileSystem::map(const Inode& inode, std::uint64_t offset) noexcept {
    if (offset / geometry_.block_size >= max_file_block)
        return fail(ErrorCode::Corrupt, "an xfs file's size is absurd", inode.number);
    if (inode.format == Format::Tree)
        return map_tree(inode, offset);
    if (inode.format != Format::Extents)
        return fail(ErrorCode::Corrupt, "an xfs file's contents have no known format",
                    inode.number);
    if (inode.extent_count > inode.fork_size / record_size)
        return fail(ErrorCode::Corrupt, "an xfs inode has more extents than it can hold",
                    inode.number);
    return map_records(inode, inode.fork_offset, inode.extent_count, offset, max_file_block);
}

// By bisection among `count` sorted records. Blocks behind the last one are a hole up to `limit`.
Result<Extent> XfsFileSystem::map_records(const Inode& inode, std::uint64_t records,
                                          std::uint64_t count, std::uint64_t offset,
                                          std::uint64_t limit) noexcept {
    const std::uint64_t block_size = geometry_.block_size;
    const std::uint64_t wanted = offset / block_size;
    const std::uint64_t within = offset % block_size;
    std::uint64_t low = 0;  // records [0, low) start at or before the block
    for (std::uint64_t high = count; low < high;) {
        const std::uint64_t middle = (low + high) / 2;
        const Record record = TRY(read_record(records + middle * record_size));
        if (record.file_block <= wanted) {
            low = middle + 1;
        } else {
            high = middle;
            limit = std::min(limit, record.file_block);
        }
    }
    const Extent hole = make_hole(std::max(limit, wanted + 1) - wanted, block_size, within);
    if (low == 0)
        return hole;
    const Record record = TRY(read_record(records + (low - 1) * record_size));
    if (record.file_block > wanted || wanted - record.file_block >= record.count)
        return hole;
    const std::uint64_t skipped = wanted - record.file_block;
    const std::uint64_t start = TRY(block_offset(record.start));
    // An extent stays within its allocation group.
    const std::uint64_t last = record.start + record.count - 1;
    if (last >> geometry_.group_log != record.start >> geometry_.group_log || !block_offset(last))
        return fail(ErrorCode::Corrupt, "an xfs extent lies outside its group", inode.number);
    return Extent{.disk_offset = start + skipped * block_size + within,
                  .length = (record.count - skipped) * block_size - within,
                  .hole = record.unwritten};
}

// The root, in the inode, and the nodes below are keys (file blocks) followed by as many pointers
// as would fit, not as there are.
Result<Extent> XfsFileSystem::map_tree(const Inode& inode, std::uint64_t offset) noexcept {
    const std::uint64_t wanted = offset / geometry_.block_size;
    const std::uint64_t block_header = geometry_.version5 ? 72 : 24;
    const std::uint32_t magic = geometry_.version5 ? 0x424d'4133 : 0x424d'4150;  // BMA3, BMAP
    const auto damaged = [&] {
        return fail(ErrorCode::Corrupt, "an xfs extent tree is damaged", inode.number);
    };
    std::array<std::byte, 8> raw;
    if (inode.fork_size < 4)
        return damaged();
    TRY(volume_.read(inode.fork_offset, std::span(raw).first(4)));
    unsigned level = load_be<std::uint16_t>(raw, 0);
    std::uint64_t count = load_be<std::uint16_t>(raw, 2);
    std::uint64_t keys = inode.fork_offset + 4;
    std::uint64_t fits = (inode.fork_size - 4) / 16;
    std::uint64_t limit = max_file_block;
    if (level == 0 || level > max_levels)
        return damaged();
    while (level != 0) {
        if (count == 0 || count > fits)
            return damaged();
        std::uint64_t low = 0;
        for (std::uint64_t high = count; low < high;) {
            const std::uint64_t middle = (low + high) / 2;
            TRY(volume_.read(keys + middle * 8, raw));
            const auto key = load_be<std::uint64_t>(raw, 0);
            if (key <= wanted) {
                low = middle + 1;
            } else {
                high = middle;
                limit = std::min(limit, key);
            }
        }
        if (low == 0)
            return Extent{
                .length = (limit - wanted) * geometry_.block_size - offset % geometry_.block_size,
                .hole = true};
        TRY(volume_.read(keys + fits * 8 + (low - 1) * 8, raw));
        const std::uint64_t block = TRY(block_offset(load_be<std::uint64_t>(raw, 0)));
        TRY(volume_.read(block, raw));
        --level;
        if (load_be<std::uint32_t>(raw, 0) != magic || load_be<std::uint16_t>(raw, 4) != level)
            return damaged();
        count = load_be<std::uint16_t>(raw, 6);
        keys = block + block_header;
        fits = (geometry_.block_size - block_header) / 16;
    }
    if (count > fits)
        return damaged();
    return map_records(inode, keys, count, offset, limit);
}

}  // namespace masu::firmware

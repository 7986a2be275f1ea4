#include "firmware/fs/gpt.hpp"

#include <algorithm>
#include <array>

#include "firmware/bytes.hpp"
#include "firmware/crc32.hpp"
#include "firmware/fs/utf16.hpp"

namespace masu::firmware {

namespace {

using Block = std::array<std::byte, 4096>;  // the largest block size

constexpr std::uint32_t max_entries = 1024;
constexpr std::size_t max_used = 128;

struct Header {
    std::uint64_t first_usable;
    std::uint64_t last_usable;
    std::uint64_t entries_lba;
    std::uint64_t alternate_lba;
    std::uint32_t entry_count;
    std::uint32_t entry_size;
    std::uint32_t entries_crc;
    Guid disk_guid;
};

Guid load_guid(std::span<const std::byte> from, std::size_t offset) {
    return load_le<Guid>(from, offset);
}

// UEFI 5.3.2: what must hold of a header at `lba`.
Result<Header> read_header(BlockReader& disk, std::uint64_t lba) {
    Block block{};
    const auto bytes = std::span(block).first(disk.block_size());
    TRY(disk.read(lba, bytes));
    if (load_le<std::uint64_t>(bytes, 0) != 0x5452'4150'2049'4645)
        return fail(ErrorCode::Corrupt, "the GPT header has no signature", lba);
    const auto size = load_le<std::uint32_t>(bytes, 12);
    if (size < 92 || size > bytes.size())
        return fail(ErrorCode::Corrupt, "the GPT header's size is absurd", size);
    const auto wanted = load_le<std::uint32_t>(bytes, 16);
    std::fill_n(bytes.begin() + 16, 4, std::byte{0});
    if (crc32(bytes.first(size)) != wanted)
        return fail(ErrorCode::Corrupt, "the GPT header's checksum is wrong", lba);
    if (load_le<std::uint64_t>(bytes, 24) != lba)
        return fail(ErrorCode::Corrupt, "the GPT header says that it lies elsewhere", lba);
    const Header header{.first_usable = load_le<std::uint64_t>(bytes, 40),
                        .last_usable = load_le<std::uint64_t>(bytes, 48),
                        .entries_lba = load_le<std::uint64_t>(bytes, 72),
                        .alternate_lba = load_le<std::uint64_t>(bytes, 32),
                        .entry_count = load_le<std::uint32_t>(bytes, 80),
                        .entry_size = load_le<std::uint32_t>(bytes, 84),
                        .entries_crc = load_le<std::uint32_t>(bytes, 88),
                        .disk_guid = load_guid(bytes, 56)};
    if (header.entry_size < 128 || header.entry_size > 4096 || !is_power_of_two(header.entry_size))
        return fail(ErrorCode::Corrupt, "the GPT's entry size is absurd", header.entry_size);
    if (header.entry_count == 0 || header.entry_count > max_entries)
        return fail(ErrorCode::Corrupt, "the GPT's number of entries is absurd",
                    header.entry_count);
    if (header.first_usable > header.last_usable)
        return fail(ErrorCode::Corrupt, "the GPT's usable range is empty", header.first_usable);
    return header;
}

const char* judge(const Header& header, const BlockReader& disk, std::uint64_t first,
                  std::uint64_t last) {
    if (last < first)
        return "it ends before it starts";
    if (first < header.first_usable || last > header.last_usable)
        return "it lies outside the GPT's usable blocks";
    if (last >= disk.block_count())
        return "it reaches beyond the end of the disk";
    return nullptr;
}

Partition parse_entry(std::span<const std::byte> entry, std::uint32_t number, const Header& header,
                      const BlockReader& disk) {
    const auto first = load_le<std::uint64_t>(entry, 32);
    const auto last = load_le<std::uint64_t>(entry, 40);
    Partition partition;
    partition.number = number;
    partition.type = load_guid(entry, 0);
    partition.unique = load_guid(entry, 16);
    partition.attributes = load_le<std::uint64_t>(entry, 48);
    partition.active = (partition.attributes & 4) != 0;
    partition.rejected = judge(header, disk, first, last);
    partition.first_lba = first;
    partition.block_count = last < first ? 0 : last - first + 1;
    utf16_to_utf8(slice(entry, 56, 72), std::span(partition.name).first<111>());
    return partition;
}

// Calls `visit(entry, number)` for each entry in use; checks the array's checksum at the end.
template <class Visit>
Result<> walk_entries(BlockReader& disk, const Header& header, Visit visit) {
    Block chunk{};  // a whole number of blocks and of entries
    const std::uint64_t block_size = disk.block_size();
    const std::uint64_t total = std::uint64_t{header.entry_count} * header.entry_size;
    std::uint32_t crc = 0;
    std::uint32_t number = 1;
    for (std::uint64_t at = 0; at < total; at += chunk.size()) {
        const std::uint64_t size = std::min<std::uint64_t>(chunk.size(), total - at);
        const std::uint64_t blocks = (size + block_size - 1) / block_size;
        TRY(disk.read(header.entries_lba + at / block_size,
                      std::span(chunk).first(blocks * block_size)));
        const auto entries = std::span<const std::byte>(chunk).first(size);
        crc = crc32(entries, crc);
        for (std::size_t start = 0; start < size; start += header.entry_size, ++number) {
            const auto entry = slice(entries, start, header.entry_size);
            if (load_guid(entry, 0) != Guid{})
                visit(entry, number);
        }
    }
    if (crc != header.entries_crc)
        return fail(ErrorCode::Corrupt, "the GPT entries' checksum is wrong", crc);
    return {};
}

Result<PartitionTable> read_copy(BlockReader& disk, Arena& arena, std::uint64_t lba) {
    const auto header = TRY(read_header(disk, lba));
    std::size_t used = 0;
    TRY(walk_entries(disk, header, [&](auto, auto) { ++used; }));
    PartitionTable table{.scheme = Scheme::Gpt, .disk_guid = header.disk_guid};
    if (used > max_used)
        table.warning = "only the first 128 partitions of the GPT are looked at";
    table.partitions = arena.make_array<Partition>(std::min(used, max_used));
    if (table.partitions.empty() && used != 0)
        return fail(ErrorCode::NoMemory, "no memory left for the partition table");
    // The disk may answer differently the second time: never trust the first count.
    std::size_t at = 0;
    TRY(walk_entries(disk, header, [&](auto entry, std::uint32_t number) {
        if (at < table.partitions.size())
            table.partitions[at++] = parse_entry(entry, number, header, disk);
    }));
    table.partitions = table.partitions.first(at);
    return table;
}

}  // namespace

Result<PartitionTable> read_gpt(BlockReader& disk, Arena& arena) noexcept {
    if (disk.block_count() < 3)
        return fail(ErrorCode::Corrupt, "the disk is too small for the GPT its MBR announces");
    auto primary = read_copy(disk, arena, 1);
    if (primary || primary.error().code == ErrorCode::NoMemory)
        return primary;
    auto backup = read_copy(disk, arena, disk.block_count() - 1);
    if (!backup)
        return primary;
    backup->warning = "the primary GPT is damaged: its backup at the end of the disk is used";
    return backup;
}

}  // namespace masu::firmware

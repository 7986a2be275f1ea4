#include "firmware/fs/partitions.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "firmware/bytes.hpp"
#include "firmware/fs/gpt.hpp"

namespace masu::firmware {

namespace {

using Block = std::array<std::byte, 4096>;

constexpr std::size_t table_offset = 446;
constexpr std::size_t max_logical = 60;
constexpr std::uint8_t protective = 0xee;

struct MbrEntry {
    std::uint8_t status;
    std::uint8_t type;
    std::uint32_t first;
    std::uint32_t count;
};

MbrEntry load_entry(std::span<const std::byte> sector, std::size_t index) {
    const std::size_t at = table_offset + index * 16;
    return {load_le<std::uint8_t>(sector, at), load_le<std::uint8_t>(sector, at + 4),
            load_le<std::uint32_t>(sector, at + 8), load_le<std::uint32_t>(sector, at + 12)};
}

bool is_extended(std::uint8_t type) {
    return type == 0x05 || type == 0x0f || type == 0x85;
}

bool has_boot_signature(std::span<const std::byte> sector) {
    return load_le<std::uint16_t>(sector, 510) == 0xaa55;
}

// A FAT or NTFS boot sector carries the same signature, with code where the table would be.
bool is_file_system(std::span<const std::byte> sector) {
    const auto jump = load_le<std::uint8_t>(sector, 0);
    const auto sector_size = load_le<std::uint16_t>(sector, 11);
    const auto fats = load_le<std::uint8_t>(sector, 16);
    const auto name = [&](std::size_t at, const char* text, std::size_t size) {
        return std::memcmp(sector.data() + at, text, size) == 0;
    };
    return (jump == 0xeb || jump == 0xe9) && (sector_size & 511) == 0 && sector_size != 0 &&
           ((fats != 0 && (name(54, "FAT", 3) || name(82, "FAT", 3))) || name(3, "NTFS", 4));
}

const char* judge(const BlockReader& disk, std::uint64_t first, std::uint64_t count) {
    if (count == 0)
        return "it is empty";
    if (first == 0)
        return "it starts on the partition table";
    if (!contains(disk, first, count))
        return "it reaches beyond the end of the disk";
    return nullptr;
}

Partition make_partition(const BlockReader& disk, const MbrEntry& entry, std::uint64_t base,
                         std::uint32_t number) {
    Partition partition;
    partition.number = number;
    partition.first_lba = base + entry.first;
    partition.block_count = entry.count;
    partition.mbr_type = entry.type;
    partition.active = (entry.status & 0x80) != 0;
    partition.rejected = judge(disk, partition.first_lba, partition.block_count);
    return partition;
}

struct Found {
    std::array<Partition, 4 + max_logical> list;
    std::size_t count = 0;
    const char* warning = nullptr;
    void add(const Partition& partition) {
        if (count < list.size())
            list[count++] = partition;
    }
};

// The chain of extended boot records: each holds one partition relative to itself and the place of
// the next record relative to the first. A record that does not come after the one before it ends
// the walk, so that the chain cannot loop.
Result<> walk_logical(BlockReader& disk, const MbrEntry& extended, Found& found) {
    Block block{};
    const auto sector = std::span(block).first(disk.block_size());
    std::uint64_t record = extended.first;
    for (std::size_t i = 0; i < max_logical; ++i) {
        if (!contains(disk, record, 1)) {
            found.warning = "the chain of logical partitions leaves the disk";
            return {};
        }
        TRY(disk.read(record, sector));
        if (!has_boot_signature(sector)) {
            found.warning = "the chain of logical partitions ends in a block that is no record";
            return {};
        }
        const auto entry = load_entry(sector, 0);
        if (entry.type != 0 && !is_extended(entry.type))
            found.add(make_partition(disk, entry, record, static_cast<std::uint32_t>(5 + i)));
        const auto link = load_entry(sector, 1);
        if (!is_extended(link.type) || link.first == 0)
            return {};
        const std::uint64_t next = std::uint64_t{extended.first} + link.first;
        if (next <= record) {
            found.warning = "the chain of logical partitions turns back on itself";
            return {};
        }
        record = next;
    }
    found.warning = "only the first 60 logical partitions are looked at";
    return {};
}

void reject_overlaps(std::span<Partition> partitions) {
    for (auto& a : partitions) {
        for (auto& b : partitions) {
            const bool apart = a.first_lba >= b.first_lba + b.block_count ||
                               b.first_lba >= a.first_lba + a.block_count;
            // Ranges already judged absurd take nobody with them.
            const auto sane = [](const Partition& p) {
                return p.rejected == nullptr || p.rejected[0] == '\0';
            };
            if (&a == &b || apart || !sane(a) || !sane(b))
                continue;
            // Marked with an empty text first, or the second of a pair would find the first one
            // rejected and count as sound.
            a.rejected = "";
            b.rejected = "";
        }
    }
    for (auto& one : partitions)
        if (one.rejected != nullptr && one.rejected[0] == '\0')
            one.rejected = "it overlaps another partition";
}

}  // namespace

Result<PartitionTable> read_partitions(BlockReader& disk, Arena& arena) noexcept {
    Block block{};
    if (disk.block_size() > block.size() || disk.block_size() < 512)
        return fail(ErrorCode::Unsupported, "the disk's block size is not 512 to 4096",
                    disk.block_size());
    if (disk.block_count() == 0)
        return PartitionTable{};
    const auto sector = std::span(block).first(disk.block_size());
    TRY(disk.read(0, sector));
    if (!has_boot_signature(sector) || is_file_system(sector))
        return PartitionTable{};
    const auto signature = load_le<std::uint32_t>(sector, 440);
    Found found;
    bool extended_seen = false;
    for (std::size_t i = 0; i < 4; ++i) {
        const auto entry = load_entry(sector, i);
        if ((entry.status & 0x7f) != 0)
            return PartitionTable{};  // not a partition table but some boot sector's code
        if (entry.type == protective) {
            auto table = read_gpt(disk, arena);
            if (table) {
                table->mbr_signature = signature;
                reject_overlaps(table->partitions);
            }
            return table;
        }
        if (entry.type == 0)
            continue;
        if (!is_extended(entry.type))
            found.add(make_partition(disk, entry, 0, static_cast<std::uint32_t>(i + 1)));
    }
    for (std::size_t i = 0; i < 4; ++i) {
        const auto entry = load_entry(sector, i);
        if (!is_extended(entry.type) || extended_seen)
            continue;
        extended_seen = true;
        TRY(walk_logical(disk, entry, found));
    }
    if (found.count == 0 && !extended_seen)
        return PartitionTable{};
    PartitionTable table{
        .scheme = Scheme::Mbr, .warning = found.warning, .mbr_signature = signature};
    table.partitions = arena.make_array<Partition>(found.count);
    if (table.partitions.size() != found.count)
        return fail(ErrorCode::NoMemory, "no memory left for the partition table");
    std::copy_n(found.list.begin(), found.count, table.partitions.begin());
    reject_overlaps(table.partitions);
    return table;
}

std::array<char, 37> to_text(const Guid& guid) noexcept {
    constexpr std::array<std::uint8_t, 16> place{3, 2, 1,  0,  5,  4,  7,  6,
                                                 8, 9, 10, 11, 12, 13, 14, 15};
    constexpr char digits[] = "0123456789abcdef";
    std::array<char, 37> text{};
    std::size_t at = 0;
    for (std::size_t i = 0; i < place.size(); ++i) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            text[at++] = '-';
        text[at++] = digits[guid.bytes[place[i]] >> 4];
        text[at++] = digits[guid.bytes[place[i]] & 15];
    }
    return text;
}

}  // namespace masu::firmware

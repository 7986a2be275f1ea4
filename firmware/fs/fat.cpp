#include "firmware/fs/fat.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "firmware/bytes.hpp"

namespace masu::firmware {

namespace {

constexpr std::uint8_t attribute_directory = 0x10;
// A directory holds at most 65536 entries of 32 bytes.
constexpr std::uint64_t max_directory = std::uint64_t{65536} * 32;

// Days since 1970-01-01 of a date in the proleptic Gregorian calendar.
std::int64_t days_since_epoch(std::int64_t year, std::int64_t month, std::int64_t day) {
    // March-based years, so that the leap day ends one.
    const std::int64_t y = month <= 2 ? year - 1 : year;
    const std::int64_t m = month <= 2 ? month + 9 : month - 3;
    return 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
}

// The high half is the date, the low one the time of day.
std::int64_t unix_time(std::uint32_t stamp) {
    const std::uint32_t date = stamp >> 16;
    if (date == 0)
        return 0;
    const auto days = days_since_epoch(1980 + (date >> 9), std::clamp((date >> 5) & 15, 1U, 12U),
                                       std::max(date & 31, 1U));
    return days * 86400 + ((stamp >> 11) & 31) * 3600 + ((stamp >> 5) & 63) * 60 + (stamp & 31) * 2;
}

Result<FatGeometry> parse_boot_sector(std::span<const std::byte> sector) {
    const auto jump = load_le<std::uint8_t>(sector, 0);
    const auto sector_size = load_le<std::uint16_t>(sector, 11);
    const auto sectors_per_cluster = load_le<std::uint8_t>(sector, 13);
    const auto reserved = load_le<std::uint16_t>(sector, 14);
    const auto fats = load_le<std::uint8_t>(sector, 16);
    const auto root_entries = load_le<std::uint16_t>(sector, 17);
    const auto media = load_le<std::uint8_t>(sector, 21);
    if (load_le<std::uint16_t>(sector, 510) != 0xaa55 || (jump != 0xeb && jump != 0xe9) ||
        !is_power_of_two(sector_size) || sector_size < 512 || sector_size > 4096 ||
        !is_power_of_two(sectors_per_cluster) || reserved == 0 || fats == 0 ||
        (media < 0xf8 && media != 0xf0))
        return fail(ErrorCode::NotFound, "no FAT boot sector");
    const auto total16 = load_le<std::uint16_t>(sector, 19);
    const std::uint64_t total = total16 != 0 ? total16 : load_le<std::uint32_t>(sector, 32);
    const auto size16 = load_le<std::uint16_t>(sector, 22);
    const std::uint64_t fat_sectors = size16 != 0 ? size16 : load_le<std::uint32_t>(sector, 36);
    const std::uint64_t root_sectors =
        (std::uint64_t{root_entries} * 32 + sector_size - 1) / sector_size;
    const std::uint64_t data = reserved + fats * fat_sectors + root_sectors;
    if (total <= data || fat_sectors == 0)
        return fail(ErrorCode::Corrupt, "the FAT file system has no room for its files", total);
    std::uint64_t clusters = (total - data) / sectors_per_cluster;
    FatGeometry geometry;
    // As Linux decides it: FAT32 is what has no 16-bit FAT size.
    geometry.bits = size16 == 0 ? 32 : clusters < 4085 ? 12 : 16;
    // The FAT may be too small for the volume: what it has no entry for does not exist.
    clusters = std::min(clusters, fat_sectors * sector_size * 8 / geometry.bits);
    if (clusters == 0 || clusters > 0x0fff'fff5)
        return fail(ErrorCode::Corrupt, "the FAT file system's cluster count is absurd", clusters);
    geometry.cluster_size = std::uint32_t{sector_size} * sectors_per_cluster;
    geometry.cluster_count = static_cast<std::uint32_t>(clusters);
    geometry.fat_offset = std::uint64_t{reserved} * sector_size;
    geometry.root_offset = (reserved + fats * fat_sectors) * sector_size;
    geometry.root_size = std::uint32_t{root_entries} * 32;
    geometry.data_offset = data * sector_size;
    geometry.total_bytes = total * sector_size;
    if (geometry.bits == 32) {
        geometry.root_cluster = load_le<std::uint32_t>(sector, 44);
        geometry.root_size = 0;
        // Mirroring may be off, with one FAT active.
        const auto flags = load_le<std::uint16_t>(sector, 40);
        if ((flags & 0x80) != 0 && (flags & 15U) < fats)
            geometry.fat_offset += (flags & 15) * fat_sectors * sector_size;
    } else if (root_entries == 0) {
        return fail(ErrorCode::Corrupt, "the FAT file system has no root directory");
    }
    return geometry;
}

}  // namespace

Result<FatFileSystem*> FatFileSystem::mount(BlockReader& reader, Arena& arena) noexcept {
    const std::size_t mark = arena.mark();
    auto mounted = [&]() -> Result<FatFileSystem*> {
        Volume volume = TRY(Volume::create(reader, arena));
        std::array<std::byte, 512> sector{};
        if (volume.size() < sector.size())
            return fail(ErrorCode::NotFound, "no FAT boot sector");
        TRY(volume.read(0, sector));
        const FatGeometry geometry = TRY(parse_boot_sector(sector));
        auto* const made = arena.make<FatFileSystem>(volume, geometry);
        if (made == nullptr)
            return fail(ErrorCode::NoMemory, "no memory left for a FAT file system");
        const std::size_t id_offset = geometry.bits == 32 ? 67 : 39;
        const auto serial = load_le<std::uint32_t>(sector, id_offset);
        for (std::size_t digit = 0, at = 0; digit < 8; ++digit) {
            if (digit == 4)
                made->uuid_[at++] = '-';
            made->uuid_[at++] = "0123456789ABCDEF"[(serial >> (28 - 4 * digit)) & 15];
        }
        made->find_label(slice(sector, id_offset + 4, 11));
        return made;
    }();
    if (!mounted)
        arena.rewind(mark);
    return mounted;
}

Result<FileSystem*> mount_fat(BlockReader& reader, Arena& arena) noexcept {
    auto mounted = FatFileSystem::mount(reader, arena);
    if (!mounted)
        return std::unexpected(mounted.error());
    return *mounted;
}

std::string_view FatFileSystem::type() const noexcept {
    return geometry_.bits == 12 ? "fat12" : geometry_.bits == 16 ? "fat16" : "fat32";
}

Node FatFileSystem::root() const noexcept {
    return {.id = geometry_.root_cluster, .attributes = attribute_directory};
}

bool FatFileSystem::is_root(const Node& node) const noexcept {
    return (node.attributes & attribute_directory) != 0 && node.id == geometry_.root_cluster;
}

// 0 at the end of the chain.
Result<std::uint32_t> FatFileSystem::next_cluster(std::uint32_t cluster) noexcept {
    if (cluster < 2 || cluster - 2 >= geometry_.cluster_count)
        return fail(ErrorCode::Corrupt, "a FAT chain leaves the file system", cluster);
    std::array<std::byte, 4> bytes{};
    std::uint32_t next = 0;
    std::uint32_t end = 0;
    switch (geometry_.bits) {
        case 12: {
            const std::uint64_t at = geometry_.fat_offset + cluster + cluster / 2;
            TRY(volume_.read(at, std::span(bytes).first(2)));
            const auto pair = load_le<std::uint16_t>(bytes, 0);
            next = (cluster & 1) != 0 ? pair >> 4 : pair & 0xfffU;
            end = 0xff8;
            break;
        }
        case 16:
            TRY(volume_.read(geometry_.fat_offset + std::uint64_t{cluster} * 2,
                             std::span(bytes).first(2)));
            next = load_le<std::uint16_t>(bytes, 0);
            end = 0xfff8;
            break;
        default:
            TRY(volume_.read(geometry_.fat_offset + std::uint64_t{cluster} * 4, bytes));
            next = load_le<std::uint32_t>(bytes, 0) & 0x0fff'ffff;
            end = 0x0fff'fff8;
            break;
    }
    if (next >= end)
        return 0U;
    if (next < 2 || next - 2 >= geometry_.cluster_count)
        return fail(ErrorCode::Corrupt, "a FAT chain leaves the file system", next);
    return next;
}

// The cluster `index` steps along the chain. The caller bounds the index by the file's size.
Result<std::uint32_t> FatFileSystem::cluster_at(std::uint32_t first, std::uint32_t index) noexcept {
    if (index >= geometry_.cluster_count)
        return fail(ErrorCode::Corrupt, "a file is larger than its FAT file system", first);
    if (chain_first_ != first || chain_index_ > index || chain_cluster_ == 0) {
        chain_first_ = first;
        chain_index_ = 0;
        chain_cluster_ = first;
        chain_mark_ = first;
        chain_lap_ = 1;
    }
    while (chain_index_ < index) {
        const auto next = next_cluster(chain_cluster_);
        if (!next || *next == 0 || *next == chain_mark_) {
            chain_cluster_ = 0;
            if (!next)
                return next;
            return fail(ErrorCode::Corrupt,
                        *next == 0 ? "a FAT chain ends too early" : "a FAT chain loops", first);
        }
        chain_cluster_ = *next;
        // Brent's way to see a loop: a mark that moves up after 1, 2, 4, 8... steps and more.
        if (++chain_index_ >= chain_lap_) {
            chain_mark_ = chain_cluster_;
            chain_lap_ = 2 * chain_index_;
        }
    }
    return chain_cluster_;
}

// Contiguous clusters are taken together, as far as they are wanted.
Result<Extent> FatFileSystem::map(std::uint32_t first, std::uint64_t offset,
                                  std::uint64_t wanted) noexcept {
    const std::uint64_t index = offset / geometry_.cluster_size;
    const std::uint64_t within = offset % geometry_.cluster_size;
    if (index >= geometry_.cluster_count)
        return fail(ErrorCode::Corrupt, "a file is larger than its FAT file system", first);
    const std::uint32_t start = TRY(cluster_at(first, static_cast<std::uint32_t>(index)));
    if (start < 2 || start - 2 >= geometry_.cluster_count)
        return fail(ErrorCode::Corrupt, "a FAT chain leaves the file system", start);
    Extent extent{.disk_offset = geometry_.data_offset +
                                 std::uint64_t{start - 2} * geometry_.cluster_size + within,
                  .length = geometry_.cluster_size - within};
    std::uint32_t last = start;
    while (extent.length < wanted) {
        const std::uint32_t next = TRY(next_cluster(last));
        if (next != last + 1)
            break;
        last = next;
        extent.length += geometry_.cluster_size;
        ++chain_index_;
        chain_cluster_ = last;
    }
    return extent;
}

Result<std::size_t> FatFileSystem::read(const Node& file, std::uint64_t offset,
                                        std::span<std::byte> to) noexcept {
    if ((file.attributes & attribute_directory) != 0)
        return fail(ErrorCode::IsDirectory, "it is a directory");
    if (offset >= file.size)
        return 0U;
    to = to.first(static_cast<std::size_t>(std::min<std::uint64_t>(to.size(), file.size - offset)));
    TRY(read_mapped(volume_, offset, to, [&](std::uint64_t at, std::uint64_t wanted) {
        return map(static_cast<std::uint32_t>(file.id), at, wanted);
    }));
    return to.size();
}

Result<FileInfo> FatFileSystem::stat(const Node& node) noexcept {
    const bool directory = (node.attributes & attribute_directory) != 0;
    return FileInfo{.type = directory ? FileType::Directory : FileType::Regular,
                    .size = directory ? 0 : node.size,
                    .modified = unix_time(node.time),
                    .mode = static_cast<std::uint16_t>(directory ? 0555 : 0444),
                    .fat_attributes = node.attributes};
}

Result<std::size_t> FatFileSystem::read_link(const Node&, std::span<char>) noexcept {
    return fail(ErrorCode::Invalid, "FAT has no symbolic links");
}

// End where the directory's space ends.
Result<FatFileSystem::Read> FatFileSystem::read_entry(const Node& directory, std::uint64_t offset,
                                                      RawEntry& to) noexcept {
    if (is_root(directory) && geometry_.bits != 32) {
        if (offset >= geometry_.root_size)
            return Read::End;
        TRY(volume_.read(geometry_.root_offset + offset, to));
        return Read::Entry;
    }
    if (offset >= max_directory)
        return fail(ErrorCode::Corrupt, "a FAT directory loops or has more than 65536 entries",
                    directory.id);
    const auto index = static_cast<std::uint32_t>(offset / geometry_.cluster_size);
    // A directory has no size: it ends with its chain.
    if (index != 0 && offset % geometry_.cluster_size == 0) {
        const auto before = TRY(cluster_at(static_cast<std::uint32_t>(directory.id), index - 1));
        if (TRY(next_cluster(before)) == 0)
            return Read::End;
    }
    const auto extent = TRY(map(static_cast<std::uint32_t>(directory.id), offset, to.size()));
    TRY(volume_.read(extent.disk_offset, to));
    return Read::Entry;
}

Node FatFileSystem::make_node(const RawEntry& raw) const noexcept {
    const std::uint32_t low = load_le<std::uint16_t>(raw, 26);
    const std::uint32_t high = geometry_.bits == 32 ? load_le<std::uint16_t>(raw, 20) : 0;
    const auto date = load_le<std::uint16_t>(raw, 24);
    return {.id = high << 16 | low,
            .size = load_le<std::uint32_t>(raw, 28),
            .time = std::uint32_t{date} << 16 | load_le<std::uint16_t>(raw, 22),
            .attributes = load_le<std::uint8_t>(raw, 11)};
}

}  // namespace masu::firmware

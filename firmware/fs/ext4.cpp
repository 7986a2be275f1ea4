#include "firmware/fs/ext4.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "firmware/bytes.hpp"
#include "firmware/fs/on_disk.hpp"

namespace masu::firmware {

namespace {

constexpr std::uint32_t incompatible_extents = 0x40;
constexpr std::uint32_t incompatible_meta_groups = 0x10;
constexpr std::uint32_t incompatible_64bit = 0x80;
constexpr std::uint32_t incompatible_large_directories = 0x4000;
constexpr std::uint32_t compatible_journal = 0x4;
constexpr std::uint32_t compatible_sparse_super2 = 0x200;
constexpr std::uint32_t read_only_sparse_super = 0x1;
// What ext3 does not have: huge_file, gdt_csum, dir_nlink, extra_isize, metadata_csum.
constexpr std::uint32_t read_only_of_ext4 = 0x8 | 0x10 | 0x20 | 0x40 | 0x400;
constexpr std::uint32_t flag_encrypted = 0x800;
constexpr std::uint32_t flag_compressed = 0x4;

// Incompatible features: whoever does not know one must not read.
constexpr std::array features{
    Feature{0x1, "the ext4 file system has the feature compression, which is not supported"},
    Feature{0x2, nullptr},  // file types in directories
    Feature{0x4, nullptr},  // the journal holds transactions
    Feature{0x8, "this is an ext4 journal device, not a file system"},
    Feature{incompatible_meta_groups, nullptr},
    Feature{incompatible_extents, nullptr},
    Feature{incompatible_64bit, nullptr},
    Feature{0x100, nullptr},  // multiple mount protection
    Feature{0x200, nullptr},  // flexible groups
    Feature{0x400, nullptr},  // large extended attributes
    Feature{0x1000, "the ext4 file system has the feature dirdata, which is not supported"},
    Feature{0x2000, nullptr},  // checksum seed
    Feature{incompatible_large_directories, nullptr},
    Feature{0x8000, nullptr},   // inline data
    Feature{0x10000, nullptr},  // encryption: refused file by file
    Feature{0x20000, nullptr},  // case folding: names are matched as written
};

Result<Ext4Geometry> parse_superblock(std::span<const std::byte> sb) {
    if (load_le<std::uint16_t>(sb, 0x38) != 0xef53)
        return fail(ErrorCode::NotFound, "no ext4 superblock");
    Ext4Geometry geometry;
    geometry.compatible = load_le<std::uint32_t>(sb, 0x5c);
    geometry.incompatible = load_le<std::uint32_t>(sb, 0x60);
    geometry.read_only = load_le<std::uint32_t>(sb, 0x64);
    TRY(check_features(geometry.incompatible, features,
                       "the ext4 file system has incompatible features that are not known here"));
    const auto log_block_size = load_le<std::uint32_t>(sb, 0x18);
    if (log_block_size > 6)
        return fail(ErrorCode::Corrupt, "the ext4 block size is absurd", log_block_size);
    const bool wide = (geometry.incompatible & incompatible_64bit) != 0;
    geometry.block_size = 1024U << log_block_size;
    geometry.block_count =
        load_le<std::uint32_t>(sb, 0x4) |
        (wide ? std::uint64_t{load_le<std::uint32_t>(sb, 0x150)} << 32 : std::uint64_t{0});
    geometry.inode_count = load_le<std::uint32_t>(sb, 0x0);
    // Revision 0 has no field for it.
    geometry.inode_size =
        load_le<std::uint32_t>(sb, 0x4c) == 0 ? 128 : load_le<std::uint16_t>(sb, 0x58);
    geometry.inodes_per_group = load_le<std::uint32_t>(sb, 0x28);
    geometry.blocks_per_group = load_le<std::uint32_t>(sb, 0x20);
    geometry.first_data_block = load_le<std::uint32_t>(sb, 0x14);
    geometry.descriptor_size = wide ? load_le<std::uint16_t>(sb, 0xfe) : 32;
    geometry.first_meta_group = load_le<std::uint32_t>(sb, 0x104);
    if (!is_power_of_two(geometry.inode_size) || geometry.inode_size < 128 ||
        geometry.inode_size > geometry.block_size)
        return fail(ErrorCode::Corrupt, "the ext4 inode size is absurd", geometry.inode_size);
    if (geometry.inodes_per_group == 0 || geometry.blocks_per_group == 0)
        return fail(ErrorCode::Corrupt, "the ext4 group size is absurd", geometry.blocks_per_group);
    if (!is_power_of_two(geometry.descriptor_size) || geometry.descriptor_size < 32 ||
        geometry.descriptor_size > 1024)
        return fail(ErrorCode::Corrupt, "the ext4 group descriptor size is absurd",
                    geometry.descriptor_size);
    if (geometry.first_data_block >= geometry.block_count ||
        geometry.block_count > (std::uint64_t{1} << 62) / geometry.block_size)
        return fail(ErrorCode::Corrupt, "the ext4 block count is absurd", geometry.block_count);
    return geometry;
}

bool is_power_of(std::uint32_t base, std::uint32_t value) {
    std::uint64_t power = base;
    while (power < value)
        power *= base;
    return power == value;
}

// Whether a group begins with a copy of the superblock, behind which its descriptors come.
bool has_superblock(const Ext4Geometry& geometry, std::uint32_t group) {
    if (group == 0)
        return true;
    if ((geometry.compatible & compatible_sparse_super2) != 0)
        return false;  // the two that have one are never the first of a meta group but group 1
    if (group == 1 || (geometry.read_only & read_only_sparse_super) == 0)
        return true;
    return is_power_of(3, group) || is_power_of(5, group) || is_power_of(7, group);
}

}  // namespace

Ext4FileSystem::Ext4FileSystem(const Volume& volume, const Ext4Geometry& geometry,
                               std::span<const std::byte> superblock,
                               std::span<std::byte> block) noexcept
    : volume_(volume),
      geometry_(geometry),
      uuid_(uuid_text(superblock.subspan(0x68).first<16>())),
      block_(block) {
    std::memcpy(label_.data(), superblock.data() + 0x78, label_.size());
}

Result<Ext4FileSystem*> Ext4FileSystem::mount(BlockReader& reader, Arena& arena) noexcept {
    const std::size_t mark = arena.mark();
    auto mounted = [&]() -> Result<Ext4FileSystem*> {
        Volume volume = TRY(Volume::create(reader, arena));
        std::array<std::byte, 1024> superblock;
        if (volume.size() < 1024 + superblock.size())
            return fail(ErrorCode::NotFound, "no ext4 superblock");
        TRY(volume.read(1024, superblock));
        const Ext4Geometry geometry = TRY(parse_superblock(superblock));
        const auto block = arena.make_array<std::byte>(geometry.block_size);
        auto* const made =
            block.empty() ? nullptr
                          : arena.make<Ext4FileSystem>(
                                volume, geometry, std::span<const std::byte>(superblock), block);
        if (made == nullptr)
            return fail(ErrorCode::NoMemory, "no memory left for an ext4 file system");
        return made;
    }();
    if (!mounted)
        arena.rewind(mark);
    return mounted;
}

Result<FileSystem*> mount_ext4(BlockReader& reader, Arena& arena) noexcept {
    auto mounted = Ext4FileSystem::mount(reader, arena);
    if (!mounted)
        return std::unexpected(mounted.error());
    return *mounted;
}

std::string_view Ext4FileSystem::type() const noexcept {
    constexpr std::uint32_t of_ext4 = 0x40 | 0x80 | 0x200 | 0x2000 | 0x4000 | 0x8000;
    if ((geometry_.incompatible & of_ext4) != 0 || (geometry_.read_only & read_only_of_ext4) != 0)
        return "ext4";
    return (geometry_.compatible & compatible_journal) != 0 ? "ext3" : "ext2";
}

// The block where a group's inode table starts.
Result<std::uint64_t> Ext4FileSystem::inode_table(std::uint32_t group) noexcept {
    const std::uint32_t per_block = geometry_.block_size / geometry_.descriptor_size;
    // Behind the superblock's block, which is not the first data block when there are clusters.
    const std::uint64_t superblock = 1024 / geometry_.block_size;
    std::uint64_t block = superblock + 1 + group / per_block;
    // With meta groups the descriptors lie in the first of the groups that they describe.
    if ((geometry_.incompatible & incompatible_meta_groups) != 0 &&
        group / per_block >= geometry_.first_meta_group) {
        const std::uint32_t first = group / per_block * per_block;
        block = geometry_.first_data_block + std::uint64_t{first} * geometry_.blocks_per_group +
                (has_superblock(geometry_, first) ? 1 : 0);
        if (first == 0)
            block = superblock + 1;
    }
    std::array<std::byte, 64> descriptor{};
    const std::size_t size = std::min<std::size_t>(descriptor.size(), geometry_.descriptor_size);
    TRY(volume_.read(
        block * geometry_.block_size + std::uint64_t{group % per_block} * geometry_.descriptor_size,
        std::span(descriptor).first(size)));
    const std::uint64_t table = load_le<std::uint32_t>(descriptor, 0x8) |
                                std::uint64_t{load_le<std::uint32_t>(descriptor, 0x28)} << 32;
    if (table >= geometry_.block_count)
        return fail(ErrorCode::Corrupt, "an ext4 inode table lies outside the file system", table);
    return table;
}

Result<Ext4FileSystem::Inode> Ext4FileSystem::read_inode(std::uint64_t number) noexcept {
    if (number == 0 || number > geometry_.inode_count)
        return fail(ErrorCode::Corrupt, "an ext4 inode number is out of range", number);
    const auto index = static_cast<std::uint32_t>(number - 1);
    const std::uint64_t table = TRY(inode_table(index / geometry_.inodes_per_group));
    Inode inode{.number = number};
    inode.disk_offset = table * geometry_.block_size +
                        std::uint64_t{index % geometry_.inodes_per_group} * geometry_.inode_size;
    std::array<std::byte, 160> raw{};
    TRY(volume_.read(inode.disk_offset, std::span(raw).first(std::min<std::size_t>(
                                            raw.size(), geometry_.inode_size))));
    inode.mode = load_le<std::uint16_t>(raw, 0);
    inode.type = type_of_mode(inode.mode);
    inode.flags = load_le<std::uint32_t>(raw, 0x20);
    inode.size = load_le<std::uint32_t>(raw, 0x4);
    // A directory's high half is an ACL's address unless directories may be that large.
    if (inode.type == FileType::Regular ||
        (inode.type == FileType::Directory &&
         (geometry_.incompatible & incompatible_large_directories) != 0))
        inode.size |= std::uint64_t{load_le<std::uint32_t>(raw, 0x6c)} << 32;
    std::memcpy(inode.block.data(), raw.data() + 0x28, inode.block.size());
    inode.modified = load_le<std::int32_t>(raw, 0x10);
    // Two more bits of seconds, if the inode's extra part reaches that far.
    if (load_le<std::uint16_t>(raw, 0x80) >= 0x8c - 0x80)
        inode.modified += std::int64_t{load_le<std::uint32_t>(raw, 0x88) & 3} << 32;
    if (inode.mode == 0)
        return fail(ErrorCode::Corrupt, "a directory names an ext4 inode that is not in use",
                    number);
    return inode;
}

Result<FileInfo> Ext4FileSystem::stat(const Node& node) noexcept {
    const Inode inode = TRY(read_inode(node.id));
    return FileInfo{.type = inode.type,
                    .size = inode.size,
                    .modified = inode.modified,
                    .mode = static_cast<std::uint16_t>(inode.mode & 07777)};
}

Result<> Ext4FileSystem::read_bytes(const Inode& inode, std::uint64_t offset,
                                    std::span<std::byte> to) noexcept {
    if ((inode.flags & flag_encrypted) != 0)
        return fail(ErrorCode::Unsupported, "the file is encrypted", inode.number);
    if ((inode.flags & flag_compressed) != 0)
        return fail(ErrorCode::Unsupported, "the file is compressed", inode.number);
    return read_mapped(volume_, offset, to, [&](std::uint64_t at, std::uint64_t wanted) {
        return map(inode, at, wanted);
    });
}

Result<std::size_t> Ext4FileSystem::read(const Node& file, std::uint64_t offset,
                                         std::span<std::byte> to) noexcept {
    const Inode inode = TRY(read_inode(file.id));
    if (inode.type == FileType::Directory)
        return fail(ErrorCode::IsDirectory, "it is a directory");
    if (inode.type != FileType::Regular)
        return fail(ErrorCode::Invalid, "it is no regular file");
    if (offset >= inode.size)
        return 0U;
    to =
        to.first(static_cast<std::size_t>(std::min<std::uint64_t>(to.size(), inode.size - offset)));
    TRY(read_bytes(inode, offset, to));
    return to.size();
}

Result<std::size_t> Ext4FileSystem::read_link(const Node& link, std::span<char> to) noexcept {
    const Inode inode = TRY(read_inode(link.id));
    if (inode.type != FileType::SymbolicLink)
        return fail(ErrorCode::Invalid, "it is no symbolic link");
    if (inode.size > to.size())
        return fail(ErrorCode::TooLarge, "a symbolic link is too long", inode.size);
    const auto target = to.first(static_cast<std::size_t>(inode.size));
    // Short ones lie where others have their block pointers.
    if (inode.size < inode.block.size() && (inode.flags & flag_encrypted) == 0)
        std::memcpy(target.data(), inode.block.data(), target.size());
    else
        TRY(read_bytes(inode, 0, std::as_writable_bytes(target)));
    return target.size();
}

}  // namespace masu::firmware

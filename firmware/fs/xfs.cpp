#include "firmware/fs/xfs.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "firmware/bytes.hpp"
#include "firmware/fs/on_disk.hpp"

namespace masu::firmware {

namespace {

constexpr std::uint32_t incompatible_file_types = 0x1;

constexpr std::array features{
    Feature{incompatible_file_types, nullptr},
    Feature{0x2, nullptr},  // sparse inode chunks
    Feature{0x4, nullptr},  // metadata UUID
    Feature{0x8, nullptr},  // bigtime
    Feature{0x10, "the xfs file system says that it needs xfs_repair"},
    Feature{0x20, nullptr},  // nrext64
    Feature{0x40, nullptr},  // exchange-range
    Feature{0x80, nullptr},  // parent pointers
    Feature{0x100, "the xfs file system has the feature metadir, which is not supported"},
    Feature{0x200, "the xfs file system has the feature zoned, which is not supported"},
};

Result<XfsGeometry> parse_superblock(std::span<const std::byte> sb) {
    if (load_be<std::uint32_t>(sb, 0) != 0x5846'5342)
        return fail(ErrorCode::NotFound, "no xfs superblock");
    const auto version = load_be<std::uint16_t>(sb, 100);
    XfsGeometry geometry;
    geometry.version5 = (version & 15) == 5;
    constexpr std::uint16_t version4_directories2 = 0x2000;
    if ((version & 15) != 5 && ((version & 15) != 4 || (version & version4_directories2) == 0))
        return fail(ErrorCode::Unsupported, "the xfs version is neither 4 nor 5", version & 15U);
    if (geometry.version5) {
        const auto incompatible = load_be<std::uint32_t>(sb, 216);
        TRY(check_features(
            incompatible, features,
            "the xfs file system has incompatible features that are not known here"));
        geometry.file_types = (incompatible & incompatible_file_types) != 0;
    } else {
        geometry.file_types = (load_be<std::uint32_t>(sb, 200) & 0x200) != 0;
    }
    const auto block_log = load_le<std::uint8_t>(sb, 120);
    const auto inode_log = load_le<std::uint8_t>(sb, 122);
    const auto directory_log = load_le<std::uint8_t>(sb, 192);
    geometry.block_size = load_be<std::uint32_t>(sb, 4);
    geometry.block_count = load_be<std::uint64_t>(sb, 8);
    geometry.root_inode = load_be<std::uint64_t>(sb, 56);
    geometry.group_blocks = load_be<std::uint32_t>(sb, 84);
    geometry.group_count = load_be<std::uint32_t>(sb, 88);
    geometry.group_log = load_le<std::uint8_t>(sb, 124);
    geometry.inode_size = load_be<std::uint16_t>(sb, 104);
    geometry.inodes_per_block_log = load_le<std::uint8_t>(sb, 123);
    if (block_log < 9 || block_log > 16 || geometry.block_size != 1U << block_log)
        return fail(ErrorCode::Corrupt, "the xfs block size is absurd", geometry.block_size);
    if (inode_log < 8 || inode_log > 11 || geometry.inode_size != 1U << inode_log ||
        inode_log > block_log || geometry.inodes_per_block_log != block_log - inode_log)
        return fail(ErrorCode::Corrupt, "the xfs inode size is absurd", geometry.inode_size);
    if (directory_log > 7 || block_log + directory_log > 16)
        return fail(ErrorCode::Corrupt, "the xfs directory block size is absurd", directory_log);
    geometry.directory_block_size = geometry.block_size << directory_log;
    if (geometry.group_blocks == 0 || geometry.group_count == 0 || geometry.group_log > 31 ||
        geometry.group_blocks > std::uint64_t{1} << geometry.group_log ||
        geometry.block_count > std::uint64_t{geometry.group_blocks} * geometry.group_count ||
        geometry.block_count > (std::uint64_t{1} << 62) / geometry.block_size)
        return fail(ErrorCode::Corrupt, "the xfs allocation groups are absurd",
                    geometry.group_count);
    return geometry;
}

}  // namespace

XfsFileSystem::XfsFileSystem(const Volume& volume, const XfsGeometry& geometry,
                             std::span<const std::byte> superblock,
                             std::span<std::byte> block) noexcept
    : volume_(volume),
      geometry_(geometry),
      uuid_(uuid_text(superblock.subspan(32).first<16>())),
      block_(block) {
    std::memcpy(label_.data(), superblock.data() + 108, label_.size());
}

Result<XfsFileSystem*> XfsFileSystem::mount(BlockReader& reader, Arena& arena) noexcept {
    const std::size_t mark = arena.mark();
    auto mounted = [&]() -> Result<XfsFileSystem*> {
        Volume volume = TRY(Volume::create(reader, arena));
        std::array<std::byte, 512> superblock;
        if (volume.size() < superblock.size())
            return fail(ErrorCode::NotFound, "no xfs superblock");
        TRY(volume.read(0, superblock));
        const XfsGeometry geometry = TRY(parse_superblock(superblock));
        const auto block = arena.make_array<std::byte>(
            std::max(geometry.directory_block_size, geometry.inode_size));
        auto* const made =
            block.empty() ? nullptr
                          : arena.make<XfsFileSystem>(
                                volume, geometry, std::span<const std::byte>(superblock), block);
        if (made == nullptr)
            return fail(ErrorCode::NoMemory, "no memory left for an xfs file system");
        return made;
    }();
    if (!mounted)
        arena.rewind(mark);
    return mounted;
}

Result<FileSystem*> mount_xfs(BlockReader& reader, Arena& arena) noexcept {
    auto mounted = XfsFileSystem::mount(reader, arena);
    if (!mounted)
        return std::unexpected(mounted.error());
    return *mounted;
}

Result<std::uint64_t> XfsFileSystem::block_offset(std::uint64_t fs_block) const noexcept {
    const std::uint64_t group = fs_block >> geometry_.group_log;
    const std::uint64_t within = fs_block & ((std::uint64_t{1} << geometry_.group_log) - 1);
    if (group >= geometry_.group_count || within >= geometry_.group_blocks)
        return fail(ErrorCode::Corrupt, "an xfs block lies outside the file system", fs_block);
    return (group * geometry_.group_blocks + within) * geometry_.block_size;
}

Result<XfsFileSystem::Inode> XfsFileSystem::read_inode(std::uint64_t number) noexcept {
    const std::uint64_t in_block = number & ((1U << geometry_.inodes_per_block_log) - 1);
    const std::uint64_t at = TRY(block_offset(number >> geometry_.inodes_per_block_log)) +
                             in_block * geometry_.inode_size;
    std::array<std::byte, 176> raw;
    TRY(volume_.read(at, raw));
    const auto version = load_le<std::uint8_t>(raw, 4);
    if (load_be<std::uint16_t>(raw, 0) != 0x494e || version == 0 || version > 3 ||
        (version == 3) != geometry_.version5)
        return fail(ErrorCode::Corrupt, "an xfs inode is damaged", number);
    Inode inode{.number = number};
    inode.mode = load_be<std::uint16_t>(raw, 2);
    inode.type = type_of_mode(inode.mode);
    const auto format = load_le<std::uint8_t>(raw, 5);
    if (inode.mode == 0 || format > 3)
        return fail(ErrorCode::Corrupt, "a directory names an xfs inode that is not in use",
                    number);
    inode.format = static_cast<Format>(format);
    inode.size = load_be<std::uint64_t>(raw, 56);
    constexpr std::uint16_t flag_realtime = 1;
    if ((load_be<std::uint16_t>(raw, 90) & flag_realtime) != 0)
        return fail(ErrorCode::Unsupported, "the file lies on the xfs realtime device", number);
    constexpr std::uint64_t flag_bigtime = 1 << 3;
    constexpr std::uint64_t flag_many_extents = 1 << 4;
    const std::uint64_t flags = version == 3 ? load_be<std::uint64_t>(raw, 120) : 0;
    // Bigtime counts nanoseconds from the earliest 32-bit time.
    inode.modified =
        (flags & flag_bigtime) != 0
            ? static_cast<std::int64_t>(load_be<std::uint64_t>(raw, 40) / 1'000'000'000) -
                  (std::int64_t{1} << 31)
            : load_be<std::int32_t>(raw, 40);
    inode.extent_count = (flags & flag_many_extents) != 0 ? load_be<std::uint64_t>(raw, 24)
                                                          : load_be<std::uint32_t>(raw, 76);
    const std::uint32_t core = version == 3 ? 176 : 100;
    const std::uint32_t forks = geometry_.inode_size - core;
    const std::uint32_t attributes = load_le<std::uint8_t>(raw, 82) * 8U;
    if (attributes > forks)
        return fail(ErrorCode::Corrupt, "an xfs inode is damaged", number);
    inode.fork_offset = at + core;
    inode.fork_size = attributes == 0 ? forks : attributes;
    return inode;
}

Result<FileInfo> XfsFileSystem::stat(const Node& node) noexcept {
    const Inode inode = TRY(read_inode(node.id));
    return FileInfo{.type = inode.type,
                    .size = inode.size,
                    .modified = inode.modified,
                    .mode = static_cast<std::uint16_t>(inode.mode & 07777)};
}

Result<> XfsFileSystem::read_bytes(const Inode& inode, std::uint64_t offset,
                                   std::span<std::byte> to) noexcept {
    return read_mapped(volume_, offset, to,
                       [&](std::uint64_t at, std::uint64_t) { return map(inode, at); });
}

Result<std::size_t> XfsFileSystem::read(const Node& file, std::uint64_t offset,
                                        std::span<std::byte> to) noexcept {
    const Inode inode = TRY(read_inode(file.id));
    if (inode.type == FileType::Directory)
        return fail(ErrorCode::IsDirectory, "it is a directory");
    if (inode.type != FileType::Regular)
        return fail(ErrorCode::Invalid, "it is no regular file");
    if (inode.size >> 63 != 0)
        return fail(ErrorCode::Corrupt, "an xfs file's size is absurd", inode.size);
    if (offset >= inode.size)
        return 0U;
    to =
        to.first(static_cast<std::size_t>(std::min<std::uint64_t>(to.size(), inode.size - offset)));
    TRY(read_bytes(inode, offset, to));
    return to.size();
}

// Short targets lie in the inode; longer ones in blocks that, in version 5, each begin with a
// header.
Result<std::size_t> XfsFileSystem::read_link(const Node& link, std::span<char> to) noexcept {
    const Inode inode = TRY(read_inode(link.id));
    if (inode.type != FileType::SymbolicLink)
        return fail(ErrorCode::Invalid, "it is no symbolic link");
    constexpr std::uint64_t longest = 1024;
    if (inode.size > to.size() || inode.size > longest)
        return fail(ErrorCode::TooLarge, "a symbolic link is too long", inode.size);
    const auto target = std::as_writable_bytes(to.first(static_cast<std::size_t>(inode.size)));
    if (inode.format == Format::Local) {
        if (target.size() > inode.fork_size)
            return fail(ErrorCode::Corrupt, "an xfs symbolic link is damaged", inode.number);
        TRY(volume_.read(inode.fork_offset, target));
        return target.size();
    }
    const std::uint64_t header = geometry_.version5 ? 56 : 0;
    std::size_t done = 0;
    for (std::uint64_t at = 0; done < target.size();) {
        const Extent extent = TRY(map(inode, at));
        if (extent.hole || extent.length <= header)
            return fail(ErrorCode::Corrupt, "an xfs symbolic link is damaged", inode.number);
        const auto part = static_cast<std::size_t>(
            std::min<std::uint64_t>(extent.length - header, target.size() - done));
        TRY(volume_.read(extent.disk_offset + header, target.subspan(done, part)));
        done += part;
        at += extent.length;
    }
    return target.size();
}

}  // namespace masu::firmware

// xfs, versions 4 and 5, read-only ("XFS Algorithms & Data Structures", 3rd edition).
//
// Checksums are not verified, and a log that still holds transactions is not replayed: as with
// GRUB, what is read is the state that was written back.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "firmware/fs/file_map.hpp"
#include "firmware/fs/file_system.hpp"
#include "firmware/fs/uuid.hpp"
#include "firmware/fs/volume.hpp"

namespace masu::firmware {

// The superblock's numbers, judged.
struct XfsGeometry {
    std::uint32_t block_size = 0;
    std::uint64_t block_count = 0;
    std::uint64_t root_inode = 0;
    std::uint32_t group_blocks = 0;  // blocks of an allocation group
    std::uint32_t group_count = 0;
    std::uint8_t group_log = 0;  // bits of a block number within a group
    std::uint32_t inode_size = 0;
    std::uint8_t inodes_per_block_log = 0;
    std::uint32_t directory_block_size = 0;
    bool version5 = false;
    bool file_types = false;  // directory entries carry the type
};

class XfsFileSystem final : public FileSystem {
  public:
    [[nodiscard]] static Result<XfsFileSystem*> mount(BlockReader& reader, Arena& arena) noexcept;
    XfsFileSystem(const Volume& volume, const XfsGeometry& geometry,
                  std::span<const std::byte> superblock, std::span<std::byte> block) noexcept;

    [[nodiscard]] std::string_view type() const noexcept override { return "xfs"; }
    [[nodiscard]] std::string_view uuid() const noexcept override {
        return {uuid_.data(), uuid_.size()};
    }
    [[nodiscard]] std::string_view label() const noexcept override { return fixed_text(label_); }
    [[nodiscard]] std::uint64_t total_bytes() const noexcept override {
        return geometry_.block_count * geometry_.block_size;
    }
    [[nodiscard]] std::uint32_t block_size() const noexcept override {
        return geometry_.block_size;
    }
    [[nodiscard]] Node root() const noexcept override { return {.id = geometry_.root_inode}; }
    [[nodiscard]] Result<FileInfo> stat(const Node& node) noexcept override;
    [[nodiscard]] Result<std::size_t> read(const Node& file, std::uint64_t offset,
                                           std::span<std::byte> to) noexcept override;
    [[nodiscard]] Result<bool> next(const Node& directory, std::uint64_t& cursor,
                                    DirectoryEntry& entry) noexcept override;
    [[nodiscard]] Result<Node> lookup(const Node& directory,
                                      std::string_view name) noexcept override;
    [[nodiscard]] Result<std::size_t> read_link(const Node& link,
                                                std::span<char> to) noexcept override;

  private:
    enum class Format : std::uint8_t { Device = 0, Local = 1, Extents = 2, Tree = 3 };
    struct Inode {
        std::uint64_t number = 0;
        FileType type = FileType::Other;
        std::uint16_t mode = 0;
        Format format = Format::Device;
        std::uint64_t size = 0;
        std::int64_t modified = 0;
        std::uint64_t extent_count = 0;
        std::uint64_t fork_offset = 0;  // of the data fork, bytes from the start of the volume
        std::uint32_t fork_size = 0;
    };
    struct Record {
        std::uint64_t file_block;
        std::uint64_t start;  // file system block: group and block within it
        std::uint64_t count;
        bool unwritten;
    };
    // One step of a directory: a view into `block_`.
    struct RawEntry {
        std::uint64_t inode;
        std::uint8_t type;
        std::string_view name;
    };

    [[nodiscard]] Result<std::uint64_t> block_offset(std::uint64_t fs_block) const noexcept;
    [[nodiscard]] Result<Inode> read_inode(std::uint64_t number) noexcept;
    [[nodiscard]] Result<Record> read_record(std::uint64_t at) noexcept;
    [[nodiscard]] Result<Extent> map(const Inode& inode, std::uint64_t offset) noexcept;
    [[nodiscard]] Result<Extent> map_records(const Inode& inode, std::uint64_t records,
                                             std::uint64_t count, std::uint64_t offset,
                                             std::uint64_t limit) noexcept;
    [[nodiscard]] Result<Extent> map_tree(const Inode& inode, std::uint64_t offset) noexcept;
    [[nodiscard]] Result<> read_bytes(const Inode& inode, std::uint64_t offset,
                                      std::span<std::byte> to) noexcept;
    [[nodiscard]] Result<std::span<const std::byte>> load_segment(const Inode& directory,
                                                                  std::uint64_t index) noexcept;
    [[nodiscard]] Result<bool> next_raw(const Inode& directory, std::uint64_t& cursor,
                                        RawEntry& entry) noexcept;
    [[nodiscard]] Result<bool> next_short(std::span<const std::byte> fork, std::uint64_t& cursor,
                                          RawEntry& entry) const noexcept;

    Volume volume_;
    XfsGeometry geometry_;
    UuidText uuid_;
    std::array<char, 12> label_;
    std::span<std::byte> block_;     // the directory block, or the fork, being looked at
    std::uint64_t block_inode_ = 0;  // whose it is; 0: nobody's
    std::uint64_t block_index_ = 0;
    std::size_t block_used_ = 0;
};

}  // namespace masu::firmware

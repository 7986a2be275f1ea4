// ext2, ext3 and ext4, read-only (Linux: Documentation/filesystems/ext4).
//
// Checksums are not verified, and a journal that still holds transactions is not replayed: as with
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
struct Ext4Geometry {
    std::uint32_t block_size = 0;
    std::uint64_t block_count = 0;
    std::uint32_t inode_count = 0;
    std::uint32_t inode_size = 0;
    std::uint32_t inodes_per_group = 0;
    std::uint32_t blocks_per_group = 0;
    std::uint32_t first_data_block = 0;
    std::uint32_t descriptor_size = 0;
    std::uint32_t first_meta_group = 0;
    std::uint32_t compatible = 0;  // feature words
    std::uint32_t incompatible = 0;
    std::uint32_t read_only = 0;
};

class Ext4FileSystem final : public FileSystem {
  public:
    [[nodiscard]] static Result<Ext4FileSystem*> mount(BlockReader& reader, Arena& arena) noexcept;
    Ext4FileSystem(const Volume& volume, const Ext4Geometry& geometry,
                   std::span<const std::byte> superblock, std::span<std::byte> block) noexcept;

    [[nodiscard]] std::string_view type() const noexcept override;
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
    [[nodiscard]] Node root() const noexcept override { return {.id = 2}; }
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
    struct Inode {
        std::uint64_t number = 0;
        std::uint64_t disk_offset = 0;
        FileType type = FileType::Other;
        std::uint16_t mode = 0;
        std::uint32_t flags = 0;
        std::uint64_t size = 0;
        std::int64_t modified = 0;
        std::array<std::byte, 60> block{};  // i_block: extent root, block pointers or contents
    };
    // One step of a directory: a view into `block_`.
    struct RawEntry {
        std::uint32_t inode;
        std::uint8_t type;
        std::string_view name;
    };

    [[nodiscard]] Result<std::uint64_t> inode_table(std::uint32_t group) noexcept;
    [[nodiscard]] Result<Inode> read_inode(std::uint64_t number) noexcept;
    [[nodiscard]] Result<Extent> map(const Inode& inode, std::uint64_t offset,
                                     std::uint64_t wanted) noexcept;
    [[nodiscard]] Result<Extent> map_inline(const Inode& inode, std::uint64_t offset) noexcept;
    [[nodiscard]] Result<Extent> map_extents(const Inode& inode, std::uint64_t offset) noexcept;
    [[nodiscard]] Result<Extent> map_indirect(const Inode& inode, std::uint64_t offset,
                                              std::uint64_t wanted) noexcept;
    [[nodiscard]] Result<std::uint64_t> indirect_block(const Inode& inode,
                                                       std::uint64_t index) noexcept;
    [[nodiscard]] Result<> read_bytes(const Inode& inode, std::uint64_t offset,
                                      std::span<std::byte> to) noexcept;
    [[nodiscard]] Result<std::span<const std::byte>> load_segment(const Inode& directory,
                                                                  std::uint64_t& start,
                                                                  std::uint64_t cursor) noexcept;
    [[nodiscard]] Result<bool> next_raw(const Inode& directory, std::uint64_t& cursor,
                                        RawEntry& entry) noexcept;

    Volume volume_;
    Ext4Geometry geometry_;
    UuidText uuid_;
    std::array<char, 16> label_;
    std::span<std::byte> block_;     // one block: the part of a directory being looked at
    std::uint64_t block_inode_ = 0;  // whose it is; 0: nobody's
    std::uint64_t block_start_ = 0;
    std::size_t block_used_ = 0;
};

}  // namespace masu::firmware

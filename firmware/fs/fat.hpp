// FAT12, FAT16 and FAT32 with long names (Microsoft's FAT specification 1.03), read-only.
#pragma once

#include "firmware/fs/file_map.hpp"
#include "firmware/fs/file_system.hpp"
#include "firmware/fs/volume.hpp"

namespace masu::firmware {

// The boot sector's numbers, judged.
struct FatGeometry {
    std::uint32_t cluster_size = 0;  // bytes
    std::uint32_t cluster_count = 0;
    std::uint64_t fat_offset = 0;    // bytes from the start of the volume, of the active FAT
    std::uint64_t root_offset = 0;   // FAT12/16
    std::uint32_t root_size = 0;     // bytes; 0 on FAT32
    std::uint32_t root_cluster = 0;  // FAT32
    std::uint64_t data_offset = 0;   // of cluster 2
    std::uint64_t total_bytes = 0;
    std::uint8_t bits = 0;  // 12, 16, 32
};

class FatFileSystem final : public FileSystem {
  public:
    [[nodiscard]] static Result<FatFileSystem*> mount(BlockReader& reader, Arena& arena) noexcept;
    FatFileSystem(const Volume& volume, const FatGeometry& geometry) noexcept
        : volume_(volume), geometry_(geometry) {}

    [[nodiscard]] std::string_view type() const noexcept override;
    [[nodiscard]] std::string_view uuid() const noexcept override { return {uuid_.data(), 9}; }
    [[nodiscard]] std::string_view label() const noexcept override {
        return {label_.data(), label_size_};
    }
    [[nodiscard]] std::uint64_t total_bytes() const noexcept override {
        return geometry_.total_bytes;
    }
    [[nodiscard]] std::uint32_t block_size() const noexcept override {
        return geometry_.cluster_size;
    }
    [[nodiscard]] Node root() const noexcept override;
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
    using RawEntry = std::array<std::byte, 32>;
    struct LongName;
    enum class Read : std::uint8_t { Entry, End };

    [[nodiscard]] Result<std::uint32_t> next_cluster(std::uint32_t cluster) noexcept;
    [[nodiscard]] Result<std::uint32_t> cluster_at(std::uint32_t first,
                                                   std::uint32_t index) noexcept;
    [[nodiscard]] Result<Extent> map(std::uint32_t first, std::uint64_t offset,
                                     std::uint64_t wanted) noexcept;
    [[nodiscard]] Result<Read> read_entry(const Node& directory, std::uint64_t offset,
                                          RawEntry& to) noexcept;
    [[nodiscard]] Result<bool> next_raw(const Node& directory, std::uint64_t& cursor, RawEntry& raw,
                                        LongName& name) noexcept;
    [[nodiscard]] Node make_node(const RawEntry& raw) const noexcept;
    void find_label(std::span<const std::byte> boot_label) noexcept;
    [[nodiscard]] bool is_root(const Node& node) const noexcept;

    Volume volume_;
    FatGeometry geometry_;
    std::array<char, 10> uuid_{};
    std::array<char, 12> label_{};
    std::size_t label_size_ = 0;
    // Where the last walk along a chain ended, so that reading on does not start over.
    std::uint32_t chain_first_ = 0;
    std::uint32_t chain_index_ = 0;
    std::uint32_t chain_cluster_ = 0;
    std::uint32_t chain_mark_ = 0;  // a cluster that must not come again
    std::uint32_t chain_lap_ = 0;   // the index at which the mark moves up
};

}  // namespace masu::firmware

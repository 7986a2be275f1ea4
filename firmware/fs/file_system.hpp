// One view of every file system: paths, sizes, contents, directories. Read-only.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "firmware/arena.hpp"
#include "firmware/fs/block_reader.hpp"
#include "firmware/result.hpp"

namespace masu::firmware {

enum class FileType : std::uint8_t { Regular, Directory, SymbolicLink, Other };

// A file of a mounted file system: its inode, or where FAT keeps it. Only the file system that gave
// it can read it; a plain value that stays good for as long as the file system object does.
struct Node {
    std::uint64_t id = 0;    // inode number; FAT: first cluster
    std::uint64_t size = 0;  // FAT only, with what follows
    std::uint32_t time = 0;
    std::uint8_t attributes = 0;
};

struct FileInfo {
    FileType type = FileType::Other;
    std::uint64_t size = 0;           // bytes; of a directory whatever its file system says
    std::int64_t modified = 0;        // seconds since 1970 (FAT: its local time taken for UTC)
    std::uint16_t mode = 0;           // permission bits; FAT: 0555 or 0444
    std::uint8_t fat_attributes = 0;  // FAT's own byte: read-only 1, hidden 2, system 4, archive 32
};

inline constexpr std::size_t max_name = 768;  // UTF-8, from 255 UTF-16 units at most

struct DirectoryEntry {
    Node node;
    FileType type = FileType::Other;  // what the directory says; Other when it does not say
    std::array<char, max_name> name_bytes;
    std::size_t name_size = 0;
    [[nodiscard]] std::string_view name() const noexcept { return {name_bytes.data(), name_size}; }
};

// Names are bytes as on disk (UTF-8 by convention); FAT's are UTF-8 made from UTF-16 and matched
// without regard to ASCII case. Every call may do disk I/O and fail with Io or Corrupt; none
// changes the disk. One caller at a time. A damaged or hostile file system yields errors or wrong
// contents, never more than a bounded amount of work per call.
class FileSystem {
  public:
    // "ext2", "ext3", "ext4", "xfs", "fat12", "fat16", "fat32".
    [[nodiscard]] virtual std::string_view type() const noexcept = 0;
    // As blkid prints it: "1C2D-8A07" for FAT, "5c8d2e2f-…" for the others.
    [[nodiscard]] virtual std::string_view uuid() const noexcept = 0;
    // Without trailing blanks; empty when there is none.
    [[nodiscard]] virtual std::string_view label() const noexcept = 0;
    [[nodiscard]] virtual std::uint64_t total_bytes() const noexcept = 0;
    [[nodiscard]] virtual std::uint32_t block_size() const noexcept = 0;

    [[nodiscard]] virtual Node root() const noexcept = 0;
    [[nodiscard]] virtual Result<FileInfo> stat(const Node& node) noexcept = 0;

    // Reads a regular file from `offset` on; the bytes read, less than asked only at its end (0 at
    // or beyond it). Contiguous extents become one large request, several extents one batch: ask
    // for MiBs.
    [[nodiscard]] virtual Result<std::size_t> read(const Node& file, std::uint64_t offset,
                                                   std::span<std::byte> to) noexcept = 0;

    // The next entry of a directory, without "." and ".."; false at its end. `cursor` starts at 0
    // and is the file system's own from then on; any value is safe.
    [[nodiscard]] virtual Result<bool> next(const Node& directory, std::uint64_t& cursor,
                                            DirectoryEntry& entry) noexcept = 0;

    // One name in a directory, also ".."; NotFound when it is not there.
    [[nodiscard]] virtual Result<Node> lookup(const Node& directory,
                                              std::string_view name) noexcept = 0;

    // The target of a symbolic link, into `to`: the bytes used. TooLarge when it does not fit.
    [[nodiscard]] virtual Result<std::size_t> read_link(const Node& link,
                                                        std::span<char> to) noexcept = 0;

    // Follows `path` ("/" between names; "." and ".." understood) from `from`, or from the root
    // when it starts with "/". Symbolic links are followed, the last name's too, 40 in all; an
    // absolute link starts at this file system's root.
    [[nodiscard]] Result<Node> open(std::string_view path, const Node& from) noexcept;
    [[nodiscard]] Result<Node> open(std::string_view path) noexcept { return open(path, root()); }
    // Does not follow the last name when that is a link.
    [[nodiscard]] Result<Node> open_no_follow(std::string_view path) noexcept;

  protected:
    constexpr FileSystem() noexcept = default;
    FileSystem(const FileSystem&) = default;
    FileSystem& operator=(const FileSystem&) = default;
    ~FileSystem() = default;

  private:
    [[nodiscard]] Result<Node> walk(std::string_view path, Node at, bool follow_last) noexcept;
};

// Recognizes and mounts what is on the volume. The object and its cache (some 300 KiB) lie in
// `arena`, which, like the reader, must outlive it. NotFound: no file system we know. Unsupported:
// one we know with a feature that we cannot read; the reason names it. On failure the arena is as
// before.
[[nodiscard]] Result<FileSystem*> mount(BlockReader& reader, Arena& arena) noexcept;

// Only this kind; NotFound when the volume holds something else.
[[nodiscard]] Result<FileSystem*> mount_fat(BlockReader& reader, Arena& arena) noexcept;
[[nodiscard]] Result<FileSystem*> mount_ext4(BlockReader& reader, Arena& arena) noexcept;
[[nodiscard]] Result<FileSystem*> mount_xfs(BlockReader& reader, Arena& arena) noexcept;

}  // namespace masu::firmware

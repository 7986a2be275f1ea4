// A snapshot's memory, compressed in pieces of which each can be read by itself.
//
// The file: 8 bytes of magic; then, in order, a zstd frame for each chunk of memory that is not all
// zeros; an index with one entry a chunk; a trailer. Numbers are little-endian.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/plain_data.hpp"
#include "base/result.hpp"
#include "vmm/snapshot/page_list.hpp"

namespace masu::cli {

inline constexpr std::array<char, 8> compressed_memory_magic{'M', 'A', 'S', 'U',
                                                             'M', 'E', 'M', 'Z'};
inline constexpr std::uint16_t compressed_memory_version = 1;
// What one fault waits for; larger ones pack better.
inline constexpr std::uint32_t default_chunk_size = 128 * 1024;
inline constexpr std::uint32_t min_chunk_size = 64 * 1024;
inline constexpr std::uint32_t max_chunk_size = 1024 * 1024;

struct ChunkEntry {
    std::uint64_t offset = 0;    // of the frame in the file; of a chunk of zeros, where it would be
    std::uint64_t checksum = 0;  // XXH3, 64 bits, of the frame
    std::uint32_t size = 0;      // of the frame; 0: the chunk is all zeros
    std::uint32_t reserved = 0;
};
static_assert(PlainData<ChunkEntry> && sizeof(ChunkEntry) == 24);

struct CompressedTrailer {
    std::uint64_t memory_bytes = 0;
    snapshot::SnapshotId belongs_to{};
    std::uint32_t chunk_size = 0;
    std::uint32_t chunk_count = 0;
    std::uint16_t version = compressed_memory_version;
    std::array<std::uint16_t, 3> reserved{};
    std::uint64_t checksum = 0;  // XXH3, 64 bits, of the index and this trailer with zero here
    std::array<char, 8> magic = compressed_memory_magic;
};
static_assert(PlainData<CompressedTrailer> && sizeof(CompressedTrailer) == 56);

// Where each chunk lies. What is in here has been checked: the frames follow each other without
// gaps, and none is larger than its chunk can become.
struct ChunkIndex {
    std::uint64_t memory_bytes = 0;
    std::uint32_t chunk_size = 0;
    snapshot::SnapshotId belongs_to{};
    std::vector<ChunkEntry> chunks;

    // Of memory: the last chunk may be shorter.
    [[nodiscard]] std::uint32_t size_of(std::size_t chunk) const noexcept;
};

// `end`: the file's last bytes, as many as index_bytes() says or more; `file_size`: of all of it.
// Both may be anyone's.
[[nodiscard]] Result<ChunkIndex> decode_chunk_index(std::span<const std::byte> end,
                                                    std::uint64_t file_size);
// How many bytes of the end hold index and trailer; checks the trailer alone.
[[nodiscard]] Result<std::uint64_t> index_bytes(std::span<const std::byte> trailer,
                                                std::uint64_t file_size);
// Index and trailer, as they end a file.
[[nodiscard]] std::vector<std::byte> encode(const ChunkIndex& index);

struct DecompressionContext;

// Unpacks chunks. One thread at a time; make one for each thread.
class ChunkReader {
  public:
    ChunkReader();
    ChunkReader(ChunkReader&&) noexcept;
    ChunkReader& operator=(ChunkReader&&) noexcept;
    ~ChunkReader();

    // The frame becomes exactly `to`. Refuses one with a wrong checksum or of another size.
    [[nodiscard]] Result<> unpack(const ChunkEntry& entry, std::span<const std::byte> frame,
                                  std::span<std::byte> to);
    // The same from the file; zeros are filled in. `to` has size_of(chunk) bytes.
    [[nodiscard]] Result<> read(int fd, const ChunkIndex& index, std::size_t chunk,
                                std::span<std::byte> to);

  private:
    std::unique_ptr<DecompressionContext> context_;
    std::vector<std::byte> frame_;
};

// An open file, checked but for the frames themselves.
struct CompressedMemory {
    Fd file;
    std::string path;
    ChunkIndex index;
};
[[nodiscard]] Result<CompressedMemory> open_compressed_memory(const std::string& path);

// Bytes of memory gone through, in rising order; may be called from any thread, one at a time.
using MemoryProgress = std::function<Result<>(std::uint64_t done)>;

// Compresses the memory file `from` to the empty file `to`, with one thread a CPU and two chunks'
// room for each. The bytes of `to`. `chunk_size`: a power of two between the limits.
[[nodiscard]] Result<std::uint64_t> compress_memory(int from, int to, const std::string& to_path,
                                                    const snapshot::SnapshotId& belongs_to,
                                                    const MemoryProgress& progress,
                                                    std::uint32_t chunk_size = default_chunk_size);

// The other way round: `to` becomes a memory file with holes for pages of zeros. The bytes written.
[[nodiscard]] Result<std::uint64_t> decompress_memory(const CompressedMemory& from, int to,
                                                      const std::string& to_path,
                                                      const MemoryProgress& progress);

}  // namespace masu::cli

// A block reader by byte addresses, with a small cache for what file systems look at again and
// again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "firmware/arena.hpp"
#include "firmware/fs/block_reader.hpp"

namespace masu::firmware {

// A piece of a file: where it lies on the volume and where it shall go.
struct Piece {
    std::uint64_t offset;  // bytes from the start of the volume
    std::span<std::byte> to;
};

class Volume {
  public:
    // Takes the cache (some 256 KiB) out of `arena`. The reader and the arena's memory must outlive
    // the volume.
    [[nodiscard]] static Result<Volume> create(BlockReader& reader, Arena& arena) noexcept;

    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

    // Metadata: through the cache, which reads ahead a little.
    [[nodiscard]] Result<> read(std::uint64_t offset, std::span<std::byte> to) noexcept;

    // File contents: straight into the buffers, in requests as large as the pieces; only a piece's
    // ragged ends go through the cache. Neighbouring pieces should be merged by the caller.
    [[nodiscard]] Result<> read_many(std::span<const Piece> pieces) noexcept;

    // Forgets what is cached: the medium changed.
    void invalidate() noexcept;

  private:
    struct Slot {
        std::uint64_t number = 0;
        std::uint64_t last_use = 0;  // 0: empty
    };
    static constexpr std::size_t slot_size = 16384;
    static constexpr std::size_t slot_count = 16;

    Volume(BlockReader& reader, std::span<std::byte> data, std::span<Slot> slots) noexcept;
    [[nodiscard]] Result<std::span<const std::byte>> slot(std::uint64_t number) noexcept;

    BlockReader* reader_;
    std::uint64_t size_;
    std::uint32_t block_size_;
    std::span<std::byte> data_;
    std::span<Slot> slots_;
    std::uint64_t clock_ = 0;
};

}  // namespace masu::firmware

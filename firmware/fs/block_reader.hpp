// Where disk bytes come from: the one interface between a block driver and everything in fs/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "firmware/result.hpp"

namespace masu::firmware {

// One transfer of several: `to.size()` is a multiple of the block size, and not 0.
struct BlockRead {
    std::uint64_t lba;
    std::span<std::byte> to;
};

// A disk or a partition of one. Implemented by the virtio-blk driver and by test doubles.
//
// Contract: block_size() is a power of two from 512 to 4096 and, like block_count(), never changes
// while anything reads through this object. Callers ask for MiBs at once where they can; an
// implementation cuts requests to what its device takes and keeps several in flight. Buffers have
// no alignment. One caller at a time.
class BlockReader {
  public:
    [[nodiscard]] virtual std::uint32_t block_size() const noexcept = 0;
    [[nodiscard]] virtual std::uint64_t block_count() const noexcept = 0;

    // Fills `to` from block `lba` on. `to.size()` is a multiple of the block size; the range may
    // lie outside the disk: that is an error (ErrorCode::Io), like a failure of the device.
    [[nodiscard]] virtual Result<> read(std::uint64_t lba, std::span<std::byte> to) noexcept = 0;

    // All of them, in any order or at once; on an error the buffers hold anything. A driver that
    // can have several requests in flight overrides this.
    [[nodiscard]] virtual Result<> read_many(std::span<const BlockRead> reads) noexcept {
        for (const auto& one : reads)
            if (auto done = read(one.lba, one.to); !done)
                return done;
        return {};
    }

  protected:
    constexpr BlockReader() noexcept = default;
    BlockReader(const BlockReader&) = default;
    BlockReader& operator=(const BlockReader&) = default;
    ~BlockReader() = default;
};

// True if `blocks` blocks from `lba` on exist.
[[nodiscard]] inline bool contains(const BlockReader& reader, std::uint64_t lba,
                                   std::uint64_t blocks) noexcept {
    return lba <= reader.block_count() && blocks <= reader.block_count() - lba;
}

// A range of another reader's blocks: a partition. The other must outlive it.
class PartitionReader final : public BlockReader {
  public:
    // The range must exist: contains(disk, first_lba, count).
    PartitionReader(BlockReader& disk, std::uint64_t first_lba, std::uint64_t count) noexcept
        : disk_(&disk), first_lba_(first_lba), count_(count) {}

    [[nodiscard]] std::uint32_t block_size() const noexcept override { return disk_->block_size(); }
    [[nodiscard]] std::uint64_t block_count() const noexcept override { return count_; }
    [[nodiscard]] Result<> read(std::uint64_t lba, std::span<std::byte> to) noexcept override;
    [[nodiscard]] Result<> read_many(std::span<const BlockRead> reads) noexcept override;

  private:
    BlockReader* disk_;
    std::uint64_t first_lba_;
    std::uint64_t count_;
};

}  // namespace masu::firmware

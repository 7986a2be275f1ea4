#include "firmware/fs/block_reader.hpp"

#include <algorithm>
#include <array>

namespace masu::firmware {

Result<> PartitionReader::read(std::uint64_t lba, std::span<std::byte> to) noexcept {
    if (!contains(*this, lba, to.size() / block_size()))
        return fail(ErrorCode::Io, "read beyond the end of the partition", lba);
    return disk_->read(first_lba_ + lba, to);
}

Result<> PartitionReader::read_many(std::span<const BlockRead> reads) noexcept {
    std::array<BlockRead, 16> batch{};
    while (!reads.empty()) {
        const std::size_t count = std::min(reads.size(), batch.size());
        for (std::size_t i = 0; i < count; ++i) {
            if (!contains(*this, reads[i].lba, reads[i].to.size() / block_size()))
                return fail(ErrorCode::Io, "read beyond the end of the partition", reads[i].lba);
            batch[i] = {first_lba_ + reads[i].lba, reads[i].to};
        }
        if (auto done = disk_->read_many(std::span(batch).first(count)); !done)
            return done;
        reads = reads.subspan(count);
    }
    return {};
}

}  // namespace masu::firmware

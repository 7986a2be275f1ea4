#include "firmware/fs/volume.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "firmware/bytes.hpp"

namespace masu::firmware {

Result<Volume> Volume::create(BlockReader& reader, Arena& arena) noexcept {
    const std::uint32_t block_size = reader.block_size();
    if (!is_power_of_two(block_size) || block_size < 512 || block_size > 4096)
        return fail(ErrorCode::Unsupported, "the disk's block size is not 512 to 4096", block_size);
    const auto data = arena.make_array<std::byte>(slot_size * slot_count);
    const auto slots = arena.make_array<Slot>(slot_count);
    if (data.empty() || slots.empty())
        return fail(ErrorCode::NoMemory, "no memory left for a disk cache");
    return Volume(reader, data, slots);
}

Volume::Volume(BlockReader& reader, std::span<std::byte> data, std::span<Slot> slots) noexcept
    : reader_(&reader), block_size_(reader.block_size()), data_(data), slots_(slots) {
    const std::uint64_t limit = std::numeric_limits<std::uint64_t>::max() / block_size_;
    size_ = std::min(reader.block_count(), limit) * block_size_;
}

void Volume::invalidate() noexcept {
    for (auto& one : slots_)
        one = Slot{};
}

// The bytes of one slot's worth of the volume, shorter at its end.
Result<std::span<const std::byte>> Volume::slot(std::uint64_t number) noexcept {
    const std::uint64_t start = number * slot_size;
    const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(slot_size, size_ - start));
    std::size_t oldest = 0;
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        if (slots_[i].last_use != 0 && slots_[i].number == number) {
            slots_[i].last_use = ++clock_;
            return data_.subspan(i * slot_size, size);
        }
        if (slots_[i].last_use < slots_[oldest].last_use)
            oldest = i;
    }
    auto& taken = slots_[oldest];
    taken.last_use = 0;
    const auto bytes = data_.subspan(oldest * slot_size, size);
    if (auto done = reader_->read(start / block_size_, bytes); !done)
        return std::unexpected(done.error());
    taken = {number, ++clock_};
    return bytes;
}

Result<> Volume::read(std::uint64_t offset, std::span<std::byte> to) noexcept {
    if (offset > size_ || to.size() > size_ - offset)
        return fail(ErrorCode::Io, "the file system points beyond the end of the disk", offset);
    while (!to.empty()) {
        const auto bytes = slot(offset / slot_size);
        if (!bytes)
            return std::unexpected(bytes.error());
        const std::size_t within = offset % slot_size;
        const std::size_t count = std::min(to.size(), bytes->size() - within);
        std::memcpy(to.data(), bytes->data() + within, count);
        offset += count;
        to = to.subspan(count);
    }
    return {};
}

Result<> Volume::read_many(std::span<const Piece> pieces) noexcept {
    std::array<BlockRead, 16> batch{};
    std::size_t count = 0;
    for (auto [offset, to] : pieces) {
        if (offset > size_ || to.size() > size_ - offset)
            return fail(ErrorCode::Io, "the file system points beyond the end of the disk", offset);
        const std::size_t head =
            std::min<std::size_t>(to.size(), (block_size_ - offset % block_size_) % block_size_);
        const std::size_t middle = (to.size() - head) / block_size_ * block_size_;
        if (auto done = read(offset, to.first(head)); !done)
            return done;
        if (auto done = read(offset + head + middle, to.subspan(head + middle)); !done)
            return done;
        if (middle == 0)
            continue;
        batch[count++] = {(offset + head) / block_size_, to.subspan(head, middle)};
        if (count < batch.size())
            continue;
        if (auto done = reader_->read_many(std::span(batch).first(count)); !done)
            return done;
        count = 0;
    }
    return count == 0 ? Result<>{} : reader_->read_many(std::span(batch).first(count));
}

}  // namespace masu::firmware

#include "firmware/virtio/blk.hpp"

#include <algorithm>

#include "firmware/platform/clock.hpp"
#include "firmware/platform/cpu.hpp"
#include "firmware/platform/say.hpp"
#include "firmware/services/memory.hpp"

namespace masu::firmware::virtio {
namespace {

constexpr std::uint64_t feature_size_max = 1ULL << 1;
constexpr std::uint64_t feature_ro = 1ULL << 5;
constexpr std::uint64_t feature_blk_size = 1ULL << 6;
constexpr std::uint64_t feature_flush = 1ULL << 9;
constexpr std::uint64_t config_capacity = 0x00;
constexpr std::uint64_t config_size_max = 0x08;
constexpr std::uint64_t config_blk_size = 0x14;

constexpr std::uint32_t type_in = 0;
constexpr std::uint32_t type_out = 1;
constexpr std::uint32_t type_flush = 4;
constexpr std::uint8_t status_ok = 0;
constexpr std::uint64_t sector_size = 512;
constexpr std::uint32_t largest_piece = 1U << 20;
// A rate-limited disk may take long, and one behind a network may stall for minutes before it goes
// on; one that never answers must not hang the boot.
constexpr std::uint64_t patience = 600 * clock::per_second;

}  // namespace

Blk* Blk::create(const Device& device) noexcept {
    auto* blk = make<Blk>();
    auto* memory = allocate_data_pages(efi::pages_for(Queue::memory_size));
    auto* requests = allocate_data_pages(efi::pages_for(Queue::slots * sizeof(Request)));
    if (blk == nullptr || memory == nullptr || requests == nullptr)
        return nullptr;
    std::memset(memory, 0, Queue::memory_size);
    blk->device_ = device;
    blk->requests_ = reinterpret_cast<Request*>(requests);
    std::uint64_t got = 0;
    if (!begin(device, feature_size_max | feature_ro | feature_blk_size | feature_flush, got) ||
        !blk->queue_.set_up(device, 0, memory)) {
        say("the disk in PCI slot ", std::uint64_t{device.slot}, " speaks no virtio 1.x");
        return nullptr;
    }
    driver_ok(device);
    blk->read_only_ = (got & feature_ro) != 0;
    blk->can_flush_ = (got & feature_flush) != 0;
    if ((got & feature_blk_size) != 0)
        blk->block_size_ = cpu::mmio_read<std::uint32_t>(device.config + config_blk_size);
    if (blk->block_size_ < 512 || blk->block_size_ > 4096 ||
        (blk->block_size_ & (blk->block_size_ - 1)) != 0)
        blk->block_size_ = 512;
    blk->piece_max_ = largest_piece;
    if ((got & feature_size_max) != 0) {
        const auto most = cpu::mmio_read<std::uint32_t>(device.config + config_size_max);
        blk->piece_max_ = std::clamp(most & ~4095U, 4096U, largest_piece);
    }
    const auto low = cpu::mmio_read<std::uint32_t>(device.config + config_capacity);
    const auto high = cpu::mmio_read<std::uint32_t>(device.config + config_capacity + 4);
    blk->block_count_ =
        (std::uint64_t{high} << 32 | low) / (blk->block_size_ / sector_size);
    return blk;
}

bool Blk::post(std::uint16_t slot, std::uint32_t type, const Range& piece) noexcept {
    auto& request = requests_[slot];
    request = {type, 0, piece.sector, 0xff};
    const auto head = reinterpret_cast<std::uint64_t>(&request);
    const Buffer chain[] = {{head, 16, false},
                            {piece.address, static_cast<std::uint32_t>(piece.size), type == type_in},
                            {head + offsetof(Request, status), 1, true}};
    const Buffer without_data[] = {chain[0], chain[2]};
    queue_.post(slot, piece.size == 0 ? std::span<const Buffer>(without_data)
                                      : std::span<const Buffer>(chain));
    return true;
}

// Keeps as many pieces in flight as there are slots.
Result<> Blk::transfer(std::uint32_t type, std::span<const Range> ranges) noexcept {
    if (dead_)
        return fail(ErrorCode::Io, "the disk has stopped answering");
    std::uint32_t free = ~std::uint32_t{0};
    static_assert(Queue::slots == 32);
    std::size_t next = 0;
    std::uint64_t offset = 0;  // within ranges[next]
    bool failed = false;
    std::uint64_t deadline = clock::now() + patience;
    while (next < ranges.size() || free != ~std::uint32_t{0}) {
        bool posted = false;
        while (free != 0 && next < ranges.size() && !failed) {
            const auto slot = static_cast<std::uint16_t>(__builtin_ctz(free));
            const auto& range = ranges[next];
            const auto size = std::min<std::uint64_t>(range.size - offset, piece_max_);
            posted = post(slot, type,
                          {range.sector + offset / sector_size, range.address + offset, size});
            free &= ~(1U << slot);
            offset += size;
            if (offset == range.size) {
                ++next;
                offset = 0;
            }
        }
        if (failed)
            next = ranges.size();
        if (posted)
            queue_.kick();
        std::uint16_t slot = 0;
        std::uint32_t written = 0;
        bool taken = false;
        while (queue_.take(slot, written)) {
            taken = true;
            free |= 1U << slot;
            failed = failed || requests_[slot].status != status_ok;
        }
        if (taken) {
            deadline = clock::now() + patience;
        } else if (free != ~std::uint32_t{0}) {
            if (clock::now() > deadline) {
                dead_ = true;
                reset(device_);
                return fail(ErrorCode::Io, "the disk has stopped answering");
            }
            cpu::pause();
        }
    }
    if (failed)
        return fail(ErrorCode::Io, "the disk reports an error");
    return {};
}

Result<> Blk::read(std::uint64_t lba, std::span<std::byte> to) noexcept {
    const BlockRead one{lba, to};
    return read_many({&one, 1});
}

Result<> Blk::read_many(std::span<const BlockRead> reads) noexcept {
    constexpr std::size_t batch = 32;
    Range ranges[batch];
    while (!reads.empty()) {
        const auto now = reads.first(std::min(reads.size(), batch));
        std::size_t count = 0;
        for (const auto& one : now) {
            if (one.to.empty())
                continue;
            if (one.to.size() % block_size_ != 0 ||
                !contains(*this, one.lba, one.to.size() / block_size_))
                return fail(ErrorCode::Io, "a read beyond the disk's end", one.lba);
            ranges[count++] = {one.lba * (block_size_ / sector_size),
                               reinterpret_cast<std::uint64_t>(one.to.data()), one.to.size()};
        }
        TRY(transfer(type_in, std::span(ranges).first(count)));
        reads = reads.subspan(now.size());
    }
    return {};
}

Result<> Blk::write(std::uint64_t lba, std::span<const std::byte> from) noexcept {
    if (from.size() % block_size_ != 0 || !contains(*this, lba, from.size() / block_size_))
        return fail(ErrorCode::Io, "a write beyond the disk's end", lba);
    if (from.empty())
        return {};
    const Range range{lba * (block_size_ / sector_size),
                      reinterpret_cast<std::uint64_t>(from.data()), from.size()};
    return transfer(type_out, {&range, 1});
}

Result<> Blk::flush() noexcept {
    if (!can_flush_)
        return {};
    const Range range{0, 0, 0};
    return transfer(type_flush, {&range, 1});
}

}  // namespace masu::firmware::virtio

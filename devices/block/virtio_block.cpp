// virtio-blk: set-up, configuration space, and what the control side may change.
#include "devices/block/virtio_block.hpp"

#include <sys/epoll.h>

#include <algorithm>
#include <cstring>

#include "base/bytes.hpp"

namespace masu::block {
namespace {

// struct virtio_blk_config (5.2.4), as far as our features define it.
struct [[gnu::packed]] Config {
    std::uint64_t capacity;  // sectors
    std::uint32_t size_max;
    std::uint32_t seg_max;
    std::uint32_t geometry;
    std::uint32_t blk_size;
    std::uint8_t physical_block_exp;
    std::uint8_t alignment_offset;
    std::uint16_t min_io_size;
    std::uint32_t opt_io_size;
    std::uint8_t writeback;
    std::uint8_t unused0;
    std::uint16_t num_queues;
    std::uint32_t max_discard_sectors;
    std::uint32_t max_discard_seg;
    std::uint32_t discard_sector_alignment;
    std::uint32_t max_write_zeroes_sectors;
    std::uint32_t max_write_zeroes_seg;
    std::uint8_t write_zeroes_may_unmap;
    std::uint8_t unused1[3];
};
static_assert(sizeof(Config) == 60);

// What file systems align to: the host's page cache and our overlays work in 4 KiB.
constexpr std::uint8_t physical_block_exp = 3;
constexpr std::uint16_t sectors_a_block = 1U << physical_block_exp;

}  // namespace

VirtioBlock::Counters::Counters(Metrics& metrics, const std::string& group)
    : read_count(metrics.counter(group, "read_count")),
      write_count(metrics.counter(group, "write_count")),
      read_bytes(metrics.counter(group, "read_bytes")),
      write_bytes(metrics.counter(group, "write_bytes")),
      flush_count(metrics.counter(group, "flush_count")),
      discard_count(metrics.counter(group, "discard_count")),
      write_zeroes_count(metrics.counter(group, "write_zeroes_count")),
      throttled(metrics.counter(group, "throttled")),
      failures(metrics.counter(group, "failures")),
      bad_requests(metrics.counter(group, "bad_requests")) {}

VirtioBlock::VirtioBlock(std::string id, std::unique_ptr<Disk> disk, Options options,
                         EventLoop& loop, Log log, Metrics& metrics, const Clock& clock)
    : id_(std::move(id)),
      options_(std::move(options)),
      loop_(loop),
      log_(std::move(log)),
      clock_(clock),
      counters_(metrics, "block_" + id_),
      limiter_(options_.limits, clock.now()),
      queue_sizes_(std::max<std::size_t>(options_.num_queues, 1), queue_size),
      disk_(std::move(disk)) {
    options_.read_only = options_.read_only || disk_->read_only();
    if (options_.serial.empty())
        options_.serial = id_;
    free_slots_.reserve(max_in_flight);
    done_.reserve(max_in_flight);
}

Result<std::unique_ptr<VirtioBlock>> VirtioBlock::create(std::string id, std::unique_ptr<Disk> disk,
                                                         Options options, EventLoop& loop, Log log,
                                                         Metrics& metrics, const Clock& clock) {
    std::unique_ptr<VirtioBlock> block(new VirtioBlock(
        std::move(id), std::move(disk), std::move(options), loop, std::move(log), metrics, clock));
    block->timer_ = TRY(loop.timer([raw = block.get()] {
        const std::lock_guard lock(raw->mutex());
        raw->serve_all();
    }));
    block->watch_ = TRY(block->watch_completions(block->disk_->completion_fd()));
    return block;
}

Result<EventLoop::Watch> VirtioBlock::watch_completions(int fd) {
    return loop_.watch(fd, EPOLLIN, [this](auto) {
        const std::lock_guard lock(mutex());
        collect();
        serve_all();
    });
}

VirtioBlock::~VirtioBlock() {
    watch_ = EventLoop::Watch();
    disk_->drain(done_);
}

Result<> VirtioBlock::swap_disk(std::unique_ptr<Disk> disk) {
    const std::lock_guard lock(mutex());
    if (disk->read_only() && !options_.read_only)
        return fail("drive {} is writable and its new disk is not; give one that can be written to",
                    id_);
    auto watch = TRY(watch_completions(disk->completion_fd()));
    wait_for_requests();
    std::swap(watch_, watch);
    watch = EventLoop::Watch();  // before the old disk closes what it watches
    disk_ = std::move(disk);
    if (driver_ != nullptr)
        driver_->interrupt_config();
    serve_all();
    return {};
}

Result<std::uint64_t> VirtioBlock::refresh_size() {
    const std::lock_guard lock(mutex());
    const auto before = disk_->size();
    const auto now = TRY(disk_->refresh_size());
    if (now != before && driver_ != nullptr)
        driver_->interrupt_config();
    return now;
}

void VirtioBlock::update_limits(const RateLimiter::Limits& limits) {
    const std::lock_guard lock(mutex());
    limiter_.update(limits, clock_.now());
    serve_all();
}

std::uint64_t VirtioBlock::features() const noexcept {
    std::uint64_t bits = feature::seg_max | feature::blk_size | feature::topology;
    if (options_.read_only)
        bits |= feature::read_only;
    else
        bits |= feature::discard | feature::write_zeroes;
    if (options_.cache == Cache::Writeback)
        bits |= feature::flush;
    if (queue_sizes_.size() > 1)
        bits |= feature::mq;
    return bits;
}

void VirtioBlock::read_config(std::uint64_t offset, std::span<std::byte> data) const noexcept {
    Config config{};
    config.capacity = disk_->size() / sector_size;
    config.seg_max = queue_size - 2;
    config.blk_size = sector_size;
    config.physical_block_exp = physical_block_exp;
    config.min_io_size = sectors_a_block;
    config.num_queues = static_cast<std::uint16_t>(queue_sizes_.size());
    if (!options_.read_only) {
        config.max_discard_sectors = max_range_sectors;
        config.max_discard_seg = max_range_segments;
        config.discard_sector_alignment = sectors_a_block;
        config.max_write_zeroes_sectors = max_range_sectors;
        config.max_write_zeroes_seg = max_range_segments;
        config.write_zeroes_may_unmap = 1;
    }
    const auto bytes = as_bytes_of(config);
    std::ranges::fill(data, std::byte{0});
    if (offset < bytes.size())
        std::ranges::copy(bytes.subspan(offset, std::min(data.size(), bytes.size() - offset)),
                          data.begin());
}

void VirtioBlock::write_config(std::uint64_t /*offset*/,
                               std::span<const std::byte> /*data*/) noexcept {}

void VirtioBlock::activate(virtio::Activation activation) {
    driver_ = activation.driver;
    negotiated_ = activation.features;
    faulted_ = false;
    queues_.clear();
    for (auto& queue : activation.queues) {
        auto& state = queues_.emplace_back();
        state.queue = std::move(queue);
    }
}

// A write-through write goes on with a flush, on the disk it went to.
void VirtioBlock::wait_for_requests() {
    while (free_slots_.size() != slots_.size()) {
        disk_->drain(done_);
        collect();
    }
}

Result<> VirtioBlock::flush_disk() {
    disk_->submit({.op = Op::Flush});
    disk_->kick();
    disk_->drain(done_);
    const int error = done_.empty() ? 0 : done_.back().error;
    done_.clear();
    if (error != 0)
        return fail_errno(error, "drive {} cannot be flushed", id_);
    return {};
}

Result<virtio::SavedDevice> VirtioBlock::save() {
    wait_for_requests();
    if (!disk_->read_only())
        TRY(flush_disk());
    timer_->disarm();
    virtio::SavedDevice saved;
    for (auto& state : queues_) {
        if (state.parked) {
            state.queue->put_back(std::move(state.parked->chain));
            state.parked.reset();
            state.pending = true;
        }
        saved.queues.push_back(state.queue ? std::optional(state.queue->position()) : std::nullopt);
    }
    return saved;
}

void VirtioBlock::reset() {
    timer_->disarm();
    disk_->drain(done_);
    done_.clear();
    free_slots_.clear();
    for (std::uint32_t slot = 0; slot < slots_.size(); ++slot) {
        slots_[slot].chain.reset();
        free_slots_.push_back(slot);
    }
    queues_.clear();
    driver_ = nullptr;
    negotiated_ = 0;
    faulted_ = false;
}

}  // namespace masu::block

// virtio-blk: a Disk for the guest (virtio 1.2, 5.2).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/event_loop.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "base/rate_limiter.hpp"
#include "base/result.hpp"
#include "devices/block/block_request.hpp"
#include "devices/block/disk.hpp"
#include "devices/virtio/device.hpp"

namespace masu::block {

// Requests go to the disk as they come and complete in any order; at most max_in_flight are under
// way, the others stay in the driver's rings. Over the rate limits, the request at hand of each
// queue waits for a timer. Threads: see virtio::Device; completions and timer on the loop's thread.
//
// Counters (group "block_<id>"): read_count, write_count (requests), read_bytes, write_bytes,
// flush_count, discard_count, write_zeroes_count, throttled (waits begun), failures (the host's
// I/O errors), bad_requests (the guest's).
class VirtioBlock final : public virtio::Device {
  public:
    static constexpr std::size_t max_in_flight = 128;
    static constexpr std::uint16_t queue_size = 256;

    enum class Cache : std::uint8_t {
        Writeback,  // FLUSH is offered; a driver that does not take it gets write-through
        Unsafe,     // nothing is ever flushed for the guest
    };
    struct Options {
        bool read_only = false;  // implied by a read-only disk
        Cache cache = Cache::Writeback;
        std::string serial;            // up to 20 bytes; empty: the id
        std::uint16_t num_queues = 1;  // 1 to the number of vCPUs
        RateLimiter::Limits limits;
    };

    // `loop`, `metrics` and `clock` are borrowed and outlive the device. Destroy it on the loop's
    // thread or while the loop does not run. Fails when the host refuses descriptors.
    [[nodiscard]] static Result<std::unique_ptr<VirtioBlock>> create(
        std::string id, std::unique_ptr<Disk> disk, Options options, EventLoop& loop, Log log,
        Metrics& metrics, const Clock& clock);
    ~VirtioBlock() override;

    // The following take mutex() themselves; loop's thread.

    // Another disk in place of the one there, whose requests are waited for; the guest is told of
    // the new size. It must be as writable as the old one was.
    [[nodiscard]] Result<> swap_disk(std::unique_ptr<Disk> disk);
    // Looks at the disk's size again and tells the guest when it changed; the size in bytes.
    [[nodiscard]] Result<std::uint64_t> refresh_size();
    // Replaces the limits named (see RateLimiter::update).
    void update_limits(const RateLimiter::Limits& limits);

    [[nodiscard]] virtio::DeviceId id() const noexcept override { return virtio::DeviceId::Block; }
    [[nodiscard]] std::uint64_t features() const noexcept override;
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override {
        return queue_sizes_;
    }
    void read_config(std::uint64_t offset, std::span<std::byte> data) const noexcept override;
    void write_config(std::uint64_t offset, std::span<const std::byte> data) noexcept override;
    void activate(virtio::Activation activation) override;
    void notify(std::uint16_t index) override;
    void reset() override;
    // Also flushes the disk, so that its file holds everything the guest was told is written.
    [[nodiscard]] Result<virtio::SavedDevice> save() override;

  private:
    static constexpr int chains_per_turn = 256;  // then other descriptors of the loop get theirs

    struct Parked {
        virtio::Chain chain;
        BlockRequest request;
        bool throttled = false;  // and counted as such
    };
    struct QueueState {
        std::optional<virtio::Queue> queue;
        std::optional<Parked> parked;  // over the rate limit
        bool pending = false;          // may have chains we have not taken
        bool completed = false;        // since the last interrupt
    };
    struct Slot {
        std::optional<virtio::Chain> chain;
        std::uint16_t queue = 0;
        BlockRequest::Kind kind{};
        std::uint64_t data_size = 0;
        std::uint64_t status_offset = 0;
        std::uint32_t in_flight = 0;
        bool flush_after = false;
        int error = 0;
        std::vector<iovec> buffers;
    };
    struct Counters {
        Counters(Metrics& metrics, const std::string& group);
        Counter& read_count;
        Counter& write_count;
        Counter& read_bytes;
        Counter& write_bytes;
        Counter& flush_count;
        Counter& discard_count;
        Counter& write_zeroes_count;
        Counter& throttled;
        Counter& failures;
        Counter& bad_requests;
    };

    VirtioBlock(std::string id, std::unique_ptr<Disk> disk, Options options, EventLoop& loop,
                Log log, Metrics& metrics, const Clock& clock);
    [[nodiscard]] Result<EventLoop::Watch> watch_completions(int fd);

    void serve_all();
    void serve(std::uint16_t index, int& budget);
    [[nodiscard]] std::optional<Parked> next(std::uint16_t index);
    [[nodiscard]] bool admit(Parked& parked);
    void start(std::uint16_t index, Parked&& parked);
    void submit(std::uint32_t slot, const BlockRequest& request);
    void fault(const char* why);

    void collect();
    void wait_for_requests();
    [[nodiscard]] Result<> flush_disk();
    void part_done(std::uint32_t slot, int error);
    void answer(std::uint16_t index, virtio::Chain&& chain, std::uint64_t status_offset,
                std::uint64_t written, Status status);
    void count(const Slot& slot) noexcept;
    void interrupt();

    std::string id_;
    Options options_;
    EventLoop& loop_;
    Log log_;
    const Clock& clock_;
    Counters counters_;
    RateLimiter limiter_;
    std::vector<std::uint16_t> queue_sizes_;

    // From activate() to reset().
    virtio::Driver* driver_ = nullptr;
    std::uint64_t negotiated_ = 0;
    std::vector<QueueState> queues_;
    bool faulted_ = false;
    std::optional<Nanoseconds> wait_;  // until the first throttled request may go on
    std::size_t first_queue_ = 0;      // served first next time, for fairness

    std::vector<Slot> slots_;
    std::vector<std::uint32_t> free_slots_;
    std::vector<Completion> done_;
    std::unique_ptr<Disk> disk_;
    std::optional<EventLoop::Timer> timer_;
    EventLoop::Watch watch_;
};

}  // namespace masu::block

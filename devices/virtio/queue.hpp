// The split virtqueue, device side (virtio 1.2, 2.7): from what the driver set up, to chains.
#pragma once

#include <sys/uio.h>

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "devices/guest_memory.hpp"

namespace masu::virtio {

inline constexpr std::uint64_t feature_indirect_desc = 1ULL << 28;  // VIRTIO_F_INDIRECT_DESC
inline constexpr std::uint64_t feature_event_idx = 1ULL << 29;      // VIRTIO_F_EVENT_IDX
inline constexpr std::uint64_t feature_version_1 = 1ULL << 32;      // VIRTIO_F_VERSION_1

inline constexpr std::uint16_t max_queue_size = 1024;
// Descriptors in one chain, an indirect table's included: what one preadv() can take (IOV_MAX).
inline constexpr std::size_t max_chain_length = 1024;

// What the driver writes into the transport's queue registers. Plain data, nothing checked yet.
struct QueueConfig {
    std::uint16_t size = 0;  // entries; the device's maximum until the driver reduces it
    bool enabled = false;
    GuestAddress desc_table;
    GuestAddress avail;
    GuestAddress used;
};

// Why a queue can no longer be trusted. Any of these sets DEVICE_NEEDS_RESET.
enum class QueueFault : std::uint8_t {
    BadAddress,     // a ring or buffer is not (wholly) in guest RAM
    BadIndex,       // descriptor index or avail jump beyond the queue, or a head still in flight
    BadSize,        // queue size that is no power of two or beyond max_queue_size
    ChainTooLong,   // loop, or more descriptors than the queue has
    BadIndirect,    // nested, misaligned, empty or absurd indirect table
    WritableFirst,  // a device-readable descriptor after a device-writable one
    TooLarge,       // more than 4 GiB in one chain
};
[[nodiscard]] const char* to_string(QueueFault fault) noexcept;

// Where a queue stands, for a snapshot.
struct QueuePosition {
    std::uint16_t next_avail = 0;
    std::uint16_t next_used = 0;
    std::uint16_t signalled_used = 0;
    std::uint16_t reserved = 0;
    bool operator==(const QueuePosition&) const = default;
};
static_assert(sizeof(QueuePosition) == 8);

class Queue;

// One buffer the driver made available: the device-readable part, then the device-writable part,
// each as host spans that were range-checked. Move-only: it ends in exactly one Queue::complete(),
// or is dropped when the device is reset. Offsets below are relative to the part they name.
class Chain {
  public:
    Chain(Chain&& other) noexcept = default;
    Chain& operator=(Chain&& other) noexcept {
        tell_written();
        head_ = other.head_;
        readable_count_ = other.readable_count_;
        readable_size_ = other.readable_size_;
        writable_size_ = other.writable_size_;
        memory_ = other.memory_;
        segments_ = std::move(other.segments_);
        other.segments_.clear();
        return *this;
    }
    // A chain that is dropped may have been written to as well.
    ~Chain() { tell_written(); }

    [[nodiscard]] std::uint16_t head() const noexcept { return head_; }
    // iovecs of guest memory, for I/O only: the guest may change the bytes at any time.
    [[nodiscard]] std::span<const iovec> readable() const noexcept {
        return std::span(segments_).first(readable_count_);
    }
    [[nodiscard]] std::span<const iovec> writable() const noexcept {
        return std::span(segments_).subspan(readable_count_);
    }
    [[nodiscard]] std::uint64_t readable_size() const noexcept { return readable_size_; }
    [[nodiscard]] std::uint64_t writable_size() const noexcept { return writable_size_; }

    // Copies out of the device-readable part; how many bytes there were (<= to.size()).
    std::size_t read(std::uint64_t offset, std::span<std::byte> to) const noexcept;
    // Copies into the device-writable part; how many bytes fitted.
    std::size_t write(std::uint64_t offset, std::span<const std::byte> from) const noexcept;

  private:
    friend class Queue;
    Chain() = default;
    // To the dirty log: all of the writable part, whatever the device made of it.
    void tell_written() const noexcept;
    const GuestMemory* memory_ = nullptr;
    std::uint16_t head_ = 0;
    std::size_t readable_count_ = 0;
    std::uint64_t readable_size_ = 0;
    std::uint64_t writable_size_ = 0;
    std::vector<iovec> segments_;  // its storage is recycled by Queue::complete()
};

// Appends to `out` the parts of `segments` that cover [offset, offset + size); false if they are
// shorter than that.
[[nodiscard]] bool slice_iovecs(std::span<const iovec> segments, std::uint64_t offset,
                                std::uint64_t size, std::vector<iovec>& out);

// A running virtqueue. Belongs to one device; every call is made under that device's mutex.
// Nothing here blocks, throws on guest input, or trusts the ring: a fault is sticky, and pop()
// returns it until the device is reset. After warm-up the data path allocates nothing.
class Queue {
  public:
    // Checks size (power of two, <= max_queue_size), alignment (16/2/4) and that all three rings
    // lie in guest RAM. `features` are the negotiated ones. `memory` must outlive the queue.
    [[nodiscard]] static std::expected<Queue, QueueFault> create(const GuestMemory& memory,
                                                                 const QueueConfig& config,
                                                                 std::uint64_t features);

    // The next available chain, or nullopt when there is none. A head that is still in flight is a
    // fault, so no more than size() chains are out at any time.
    [[nodiscard]] std::expected<std::optional<Chain>, QueueFault> pop() noexcept;

    // Undoes the latest pop(): the chain is available again, and popped next. Of several, the last
    // popped comes back first.
    void put_back(Chain&& chain) noexcept;

    // Puts a chain on the used ring; `written` is the number of bytes written into its writable
    // part. Order is free (block completes out of order). Works after a fault too.
    void complete(Chain&& chain, std::uint32_t written) noexcept;

    // Whether the driver wants an interrupt for what was completed since the last call (event
    // index, or the avail flag). Call once after a batch of complete().
    [[nodiscard]] bool needs_interrupt() noexcept;

    // Asks the driver to notify (or not) about new buffers. enable returns true when buffers came
    // in meanwhile: the caller pops again, since no notification will come for them.
    void disable_notifications() noexcept;
    [[nodiscard]] bool enable_notifications() noexcept { return enable_notifications_beyond(0); }
    // The same for a caller to whom `chains` available ones are not enough: true when there are
    // more than that.
    [[nodiscard]] bool enable_notifications_beyond(std::uint16_t chains) noexcept;

    [[nodiscard]] std::uint16_t size() const noexcept { return size_; }
    [[nodiscard]] std::uint16_t next_avail() const noexcept { return next_avail_; }
    [[nodiscard]] std::uint16_t next_used() const noexcept { return next_used_; }
    // For a snapshot: taken and set while no chain is out. Any value is safe; a wrong one shows as
    // a fault at the next pop().
    [[nodiscard]] QueuePosition position() const noexcept {
        return {
            .next_avail = next_avail_, .next_used = next_used_, .signalled_used = signalled_used_};
    }
    void set_position(const QueuePosition& position) noexcept {
        next_avail_ = position.next_avail;
        next_used_ = position.next_used;
        signalled_used_ = position.signalled_used;
    }

  private:
    struct Descriptor;
    struct Walk;
    Queue() = default;
    [[nodiscard]] std::unexpected<QueueFault> fail_with(QueueFault fault) noexcept;
    [[nodiscard]] std::expected<void, QueueFault> walk(std::uint16_t head, Chain& chain) noexcept;
    [[nodiscard]] std::expected<void, QueueFault> walk_indirect(const Descriptor& table,
                                                                Walk& walk) const noexcept;
    [[nodiscard]] std::uint16_t avail_index() const noexcept;
    void recycle(Chain&& chain) noexcept;
    void wish(std::uint16_t* word, std::uint16_t value) noexcept;  // in the used ring

    // The rings as create() checked them; the mappings outlive the queue.
    const GuestMemory* memory_ = nullptr;
    const std::byte* desc_table_ = nullptr;
    std::uint16_t* avail_flags_ = nullptr;
    std::uint16_t* avail_index_ = nullptr;
    const std::byte* avail_ring_ = nullptr;
    std::uint16_t* used_flags_ = nullptr;
    std::uint16_t* used_index_ = nullptr;
    std::byte* used_ring_ = nullptr;
    std::uint16_t* used_event_ = nullptr;   // the driver's wish; in the avail ring
    std::uint16_t* avail_event_ = nullptr;  // ours; in the used ring

    std::uint16_t size_ = 0;
    bool event_idx_ = false;
    bool indirect_ = false;
    std::uint16_t next_avail_ = 0;
    std::uint16_t next_used_ = 0;
    std::uint16_t signalled_used_ = 0;  // next_used_ when needs_interrupt() was last asked
    std::optional<QueueFault> fault_;
    std::bitset<max_queue_size> in_flight_;  // by head
    std::vector<std::vector<iovec>> spare_;  // segment storage waiting to be reused
};

}  // namespace masu::virtio

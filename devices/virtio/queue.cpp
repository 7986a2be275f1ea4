// Walking the driver's rings without trusting them (virtio 1.2, 2.7).
#include "devices/virtio/queue.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>

#include "base/bytes.hpp"

namespace masu::virtio {

namespace {

// Descriptor flags (2.7.5).
constexpr std::uint16_t desc_f_next = 1;
constexpr std::uint16_t desc_f_write = 2;
constexpr std::uint16_t desc_f_indirect = 4;
// avail->flags (2.7.6) and used->flags (2.7.8).
constexpr std::uint16_t avail_f_no_interrupt = 1;
constexpr std::uint16_t used_f_no_notify = 1;

constexpr std::uint64_t descriptor_size = 16;
constexpr std::uint64_t used_element_size = 8;
constexpr std::uint64_t max_chain_bytes = 1ULL << 32;  // 2.7.5

// Where the parts of a split ring of n entries lie (2.7.2).
constexpr std::uint64_t avail_index_offset = 2;
constexpr std::uint64_t avail_ring_offset = 4;
constexpr std::uint64_t used_index_offset = 2;
constexpr std::uint64_t used_ring_offset = 4;
constexpr std::uint64_t used_event_offset(std::uint64_t n) {
    return avail_ring_offset + 2 * n;
}
constexpr std::uint64_t avail_event_offset(std::uint64_t n) {
    return used_ring_offset + used_element_size * n;
}

std::uint16_t load_ring(std::uint16_t* word, std::memory_order order) noexcept {
    return std::atomic_ref(*word).load(order);
}

void store_ring(std::uint16_t* word, std::uint16_t value, std::memory_order order) noexcept {
    std::atomic_ref(*word).store(value, order);
}

// A value the guest may be changing right now, fetched exactly once: the fence keeps the compiler
// from reading the memory again later in place of the copy.
template <class T>
T load_once(const std::byte* from) noexcept {
    const T value = load_unaligned<T>(from);
    std::atomic_signal_fence(std::memory_order_acq_rel);
    return value;
}

}  // namespace

const char* to_string(QueueFault fault) noexcept {
    switch (fault) {
        case QueueFault::BadAddress:
            return "a ring or buffer is misaligned or not in guest RAM";
        case QueueFault::BadIndex:
            return "an index beyond the queue, or a head that is still in flight";
        case QueueFault::BadSize:
            return "a queue size that is no power of two or too large";
        case QueueFault::ChainTooLong:
            return "a descriptor chain loops or is too long";
        case QueueFault::BadIndirect:
            return "a malformed indirect descriptor table";
        case QueueFault::WritableFirst:
            return "a device-readable descriptor after a device-writable one";
        case QueueFault::TooLarge:
            return "a descriptor chain of more than 4 GiB";
    }
    return "an unknown queue fault";
}

std::size_t Chain::read(std::uint64_t offset, std::span<std::byte> to) const noexcept {
    std::size_t done = 0;
    for (const auto& segment : readable()) {
        if (done == to.size())
            break;
        if (offset >= segment.iov_len) {
            offset -= segment.iov_len;
            continue;
        }
        const auto size = std::min<std::size_t>(segment.iov_len - offset, to.size() - done);
        std::memcpy(to.data() + done, static_cast<const std::byte*>(segment.iov_base) + offset,
                    size);
        done += size;
        offset = 0;
    }
    std::atomic_signal_fence(std::memory_order_acq_rel);  // as in load_once()
    return done;
}

std::size_t Chain::write(std::uint64_t offset, std::span<const std::byte> from) const noexcept {
    std::size_t done = 0;
    for (const auto& segment : writable()) {
        if (done == from.size())
            break;
        if (offset >= segment.iov_len) {
            offset -= segment.iov_len;
            continue;
        }
        const auto size = std::min<std::size_t>(segment.iov_len - offset, from.size() - done);
        std::memcpy(static_cast<std::byte*>(segment.iov_base) + offset, from.data() + done, size);
        done += size;
        offset = 0;
    }
    return done;
}

void Chain::tell_written() const noexcept {
    if (memory_ == nullptr || segments_.empty())
        return;
    for (const auto& segment : writable())
        memory_->wrote(segment.iov_base, segment.iov_len);
}

bool slice_iovecs(std::span<const iovec> segments, std::uint64_t offset, std::uint64_t size,
                  std::vector<iovec>& out) {
    for (const auto& segment : segments) {
        if (size == 0)
            return true;
        if (offset >= segment.iov_len) {
            offset -= segment.iov_len;
            continue;
        }
        const auto part = std::min<std::uint64_t>(segment.iov_len - offset, size);
        out.push_back({.iov_base = static_cast<std::byte*>(segment.iov_base) + offset,
                       .iov_len = static_cast<std::size_t>(part)});
        size -= part;
        offset = 0;
    }
    return size == 0;
}

// struct virtq_desc (2.7.5).
struct Queue::Descriptor {
    std::uint64_t address;
    std::uint32_t length;
    std::uint16_t flags;
    std::uint16_t next;
};

// A chain in the making, and what has been seen of it.
struct Queue::Walk {
    const GuestMemory& memory;
    Chain& chain;
    bool writable_seen = false;
    std::uint64_t total = 0;

    [[nodiscard]] std::expected<void, QueueFault> append(const Descriptor& descriptor) {
        const bool writable = (descriptor.flags & desc_f_write) != 0;
        // 2.7.4.2: all device-readable elements come first.
        if (writable_seen && !writable)
            return std::unexpected(QueueFault::WritableFirst);
        writable_seen = writable;
        // Its address means nothing, and an iovec of it would buy nothing.
        if (descriptor.length == 0)
            return {};
        total += descriptor.length;
        if (total > max_chain_bytes)
            return std::unexpected(QueueFault::TooLarge);
        const auto bytes = memory.slice({descriptor.address}, descriptor.length);
        if (!bytes)
            return std::unexpected(QueueFault::BadAddress);
        chain.segments_.push_back({.iov_base = bytes->data(), .iov_len = bytes->size()});
        if (writable) {
            chain.writable_size_ += descriptor.length;
        } else {
            ++chain.readable_count_;
            chain.readable_size_ += descriptor.length;
        }
        return {};
    }
};

std::expected<Queue, QueueFault> Queue::create(const GuestMemory& memory, const QueueConfig& config,
                                               std::uint64_t features) {
    static_assert(sizeof(Descriptor) == descriptor_size);
    const std::uint64_t n = config.size;
    if (!std::has_single_bit(config.size) || config.size > max_queue_size)
        return std::unexpected(QueueFault::BadSize);
    if (!is_aligned(config.desc_table.value, 16) || !is_aligned(config.avail.value, 2) ||
        !is_aligned(config.used.value, 4))
        return std::unexpected(QueueFault::BadAddress);

    // Each ring whole, with its event word, so that no part of it needs another check.
    const auto desc_table = memory.slice(config.desc_table, descriptor_size * n);
    const auto avail = memory.slice(config.avail, used_event_offset(n) + 2);
    const auto used = memory.slice(config.used, avail_event_offset(n) + 2);
    if (!desc_table || !avail || !used)
        return std::unexpected(QueueFault::BadAddress);

    Queue queue;
    queue.memory_ = &memory;
    queue.desc_table_ = desc_table->data();
    queue.avail_flags_ = memory.ring_word(config.avail);
    queue.avail_index_ = memory.ring_word(config.avail + avail_index_offset);
    queue.avail_ring_ = avail->data() + avail_ring_offset;
    queue.used_event_ = memory.ring_word(config.avail + used_event_offset(n));
    queue.used_flags_ = memory.ring_word(config.used);
    queue.used_index_ = memory.ring_word(config.used + used_index_offset);
    queue.used_ring_ = used->data() + used_ring_offset;
    queue.avail_event_ = memory.ring_word(config.used + avail_event_offset(n));
    queue.size_ = config.size;
    queue.event_idx_ = (features & feature_event_idx) != 0;
    queue.indirect_ = (features & feature_indirect_desc) != 0;
    queue.spare_.reserve(config.size);  // complete() never grows it
    return queue;
}

std::unexpected<QueueFault> Queue::fail_with(QueueFault fault) noexcept {
    fault_ = fault;
    return std::unexpected(fault);
}

std::uint16_t Queue::avail_index() const noexcept {
    // Acquire: pairs with the driver's barrier between filling the ring and the descriptors, and
    // the store of avail->idx that publishes them (2.7.13.2, 2.7.13.3).
    return load_ring(avail_index_, std::memory_order_acquire);
}

std::expected<std::optional<Chain>, QueueFault> Queue::pop() noexcept {
    if (fault_)
        return std::unexpected(*fault_);
    const auto pending = static_cast<std::uint16_t>(avail_index() - next_avail_);
    if (pending == 0)
        return std::optional<Chain>();
    if (pending > size_)
        return fail_with(QueueFault::BadIndex);

    const std::size_t slot = next_avail_ & (size_ - 1U);
    const auto head = load_once<std::uint16_t>(avail_ring_ + slot * sizeof(std::uint16_t));
    if (head >= size_ || in_flight_[head])
        return fail_with(QueueFault::BadIndex);

    Chain chain;
    chain.memory_ = memory_;
    chain.head_ = head;
    if (!spare_.empty()) {
        chain.segments_ = std::move(spare_.back());
        spare_.pop_back();
    }
    if (const auto walked = walk(head, chain); !walked)
        return fail_with(walked.error());
    ++next_avail_;
    in_flight_.set(head);
    return std::optional(std::move(chain));
}

std::expected<void, QueueFault> Queue::walk(std::uint16_t head, Chain& chain) noexcept {
    Walk walk{.memory = *memory_, .chain = chain};
    std::uint16_t index = head;
    for (std::uint16_t count = 0; count < size_; ++count) {
        const auto descriptor = load_once<Descriptor>(desc_table_ + index * descriptor_size);
        const bool more = (descriptor.flags & desc_f_next) != 0;
        if ((descriptor.flags & desc_f_indirect) != 0) {
            // 2.7.5.3.1: an indirect descriptor ends its chain.
            if (more)
                return std::unexpected(QueueFault::BadIndirect);
            return walk_indirect(descriptor, walk);
        }
        if (const auto appended = walk.append(descriptor); !appended)
            return appended;
        if (!more)
            return {};
        index = descriptor.next;
        if (index >= size_)
            return std::unexpected(QueueFault::BadIndex);
    }
    return std::unexpected(QueueFault::ChainTooLong);
}

std::expected<void, QueueFault> Queue::walk_indirect(const Descriptor& table,
                                                     Walk& walk) const noexcept {
    const std::size_t entries = table.length / descriptor_size;
    if (!indirect_ || entries == 0 || entries > max_chain_length ||
        table.length % descriptor_size != 0)
        return std::unexpected(QueueFault::BadIndirect);
    const auto bytes = memory_->slice({table.address}, table.length);
    if (!bytes)
        return std::unexpected(QueueFault::BadAddress);

    std::size_t index = 0;
    for (std::size_t count = 0; count < entries; ++count) {
        if (walk.chain.segments_.size() >= max_chain_length)
            return std::unexpected(QueueFault::ChainTooLong);
        const auto descriptor = load_once<Descriptor>(bytes->data() + index * descriptor_size);
        if ((descriptor.flags & desc_f_indirect) != 0)
            return std::unexpected(QueueFault::BadIndirect);
        if (const auto appended = walk.append(descriptor); !appended)
            return appended;
        if ((descriptor.flags & desc_f_next) == 0)
            return {};
        index = descriptor.next;
        if (index >= entries)
            return std::unexpected(QueueFault::BadIndirect);
    }
    return std::unexpected(QueueFault::ChainTooLong);
}

void Queue::complete(Chain&& chain, std::uint32_t written) noexcept {
    struct UsedElement {  // struct virtq_used_elem (2.7.8)
        std::uint32_t id;
        std::uint32_t length;
    };
    static_assert(sizeof(UsedElement) == used_element_size);
    const std::size_t slot = next_used_ & (size_ - 1U);
    auto* const element = used_ring_ + slot * used_element_size;
    store_unaligned(element, UsedElement{chain.head_, written});
    memory_->wrote(element, used_element_size);
    ++next_used_;
    // Release: pairs with the driver's read barrier after it has seen used->idx (2.7.14), so that
    // the element above and the data the device wrote are there for it.
    store_ring(used_index_, next_used_, std::memory_order_release);
    memory_->wrote(used_index_, sizeof *used_index_);
    chain.tell_written();
    recycle(std::move(chain));
}

void Queue::put_back(Chain&& chain) noexcept {
    --next_avail_;
    recycle(std::move(chain));
}

void Queue::recycle(Chain&& chain) noexcept {
    in_flight_.reset(chain.head_);
    chain.segments_.clear();
    if (spare_.size() < size_)
        spare_.push_back(std::move(chain.segments_));
}

bool Queue::needs_interrupt() noexcept {
    const std::uint16_t old = signalled_used_;
    const std::uint16_t now = next_used_;
    if (old == now)
        return false;
    signalled_used_ = now;
    // Sequentially consistent: our store of used->idx before our load of the driver's wish. Pairs
    // with the driver's full barrier between storing its wish and looking at used->idx again
    // (2.7.10); without both, each could miss the other's store and the interrupt be lost.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    if (!event_idx_) {
        const auto flags = load_ring(avail_flags_, std::memory_order_relaxed);
        return (flags & avail_f_no_interrupt) == 0;
    }
    // Whether used_event lies in [old, now), in the ring's wrapping arithmetic.
    const auto event = load_ring(used_event_, std::memory_order_relaxed);
    return static_cast<std::uint16_t>(now - event - 1) < static_cast<std::uint16_t>(now - old);
}

void Queue::wish(std::uint16_t* word, std::uint16_t value) noexcept {
    store_ring(word, value, std::memory_order_relaxed);
    memory_->wrote(word, sizeof *word);
}

void Queue::disable_notifications() noexcept {
    // With the event index an avail_event that stays behind says the same.
    if (!event_idx_)
        wish(used_flags_, used_f_no_notify);
}

bool Queue::enable_notifications_beyond(std::uint16_t chains) noexcept {
    if (fault_)
        return false;
    if (event_idx_)
        wish(avail_event_, static_cast<std::uint16_t>(next_avail_ + chains));
    else
        wish(used_flags_, 0);
    // Sequentially consistent: our wish is out before we look for buffers. Pairs with the driver's
    // full barrier between storing avail->idx and loading our wish (2.7.13.4.1).
    std::atomic_thread_fence(std::memory_order_seq_cst);
    return static_cast<std::uint16_t>(avail_index() - next_avail_) > chains;
}

}  // namespace masu::virtio

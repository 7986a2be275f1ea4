// Searching, filling and emptying the flow table.
#include "devices/net/firewall/flow_table.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <new>
#include <tuple>

namespace masu::net {
namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;
// More than one slot an insertion, so that the old half is empty long before the new one is full.
constexpr std::size_t migrate_per_insert = 16;
constexpr std::size_t sweep_per_insert = 8;

}  // namespace

template <class Bits>
void FlowTable<Bits>::Unmap::operator()(Slot* slots) const noexcept {
    ::munmap(slots, bytes);
}

// Zeroed pages from the kernel are free slots: FlowState::Empty is 0.
template <class Bits>
auto FlowTable<Bits>::allocate(std::size_t capacity) noexcept -> Half {
    static_assert(std::to_underlying(FlowState::Empty) == 0);
    const auto bytes = capacity * sizeof(Slot);
    void* memory =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return {};
    if (bytes >= huge_page)
        ::madvise(memory, bytes, MADV_HUGEPAGE);  // fewer TLB misses; as well without
    Half half;
    half.slots = std::unique_ptr<Slot, Unmap>(static_cast<Slot*>(memory), Unmap{bytes});
    half.capacity = capacity;
    return half;
}

template <class Bits>
std::uint64_t FlowTable<Bits>::hash(const Key& key) const noexcept {
    SipHash<1, 3> sip(key_);
    const auto rest = static_cast<std::uint64_t>(key.local_port) |
                      static_cast<std::uint64_t>(key.remote_port) << 16 |
                      static_cast<std::uint64_t>(key.protocol) << 32;
    if constexpr (sizeof(Bits) == 4)
        sip.word(static_cast<std::uint64_t>(key.local) << 32 | key.remote);
    else
        sip.word(key.local.high).word(key.local.low).word(key.remote.high).word(key.remote.low);
    constexpr std::uint64_t length = 2 * sizeof(Bits) + 5;
    return sip.finish(rest | length << 56);
}

template <class Bits>
void FlowTable<Bits>::prefetch(std::uint64_t hash) const noexcept {
    if (current_.capacity != 0)
        __builtin_prefetch(&current_.at(current_.home(hash)), 1);
}

template <class Bits>
auto FlowTable<Bits>::find(const Key& key, std::uint64_t hash, Nanoseconds now) noexcept -> Slot* {
    if (current_.capacity == 0)
        return nullptr;
    const auto home = current_.home(hash);
    for (std::size_t i = 0; i < max_probe; ++i) {
        auto& slot = current_.at(home + i);
        if (slot.state == FlowState::Empty)
            break;
        if (!slot.has_key(key))
            continue;
        if (slot.live(now))
            return &slot;
        erase(&slot);
        return nullptr;
    }
    return old_.capacity == 0 ? nullptr : find_in_old(key, hash, now);
}

// A flow found in the old half moves at once, so that the caller's pointer is into the new one.
template <class Bits>
auto FlowTable<Bits>::find_in_old(const Key& key, std::uint64_t hash, Nanoseconds now) noexcept
    -> Slot* {
    const auto home = old_.home(hash);
    for (std::size_t i = 0; i < max_probe; ++i) {
        auto& slot = old_.at(home + i);
        if (slot.state == FlowState::Empty)
            return nullptr;
        if (slot.state == FlowState::Moved || !slot.has_key(key))
            continue;
        Slot* place = slot.live(now) ? free_slot(hash, now) : nullptr;
        if (place != nullptr)
            *place = slot;
        else
            --size_;
        slot.state = FlowState::Moved;
        return place;
    }
    return nullptr;
}

// The first slot of the new half that holds nothing alive. An expired flow in the way is replaced.
template <class Bits>
auto FlowTable<Bits>::free_slot(std::uint64_t hash, Nanoseconds now) noexcept -> Slot* {
    const auto home = current_.home(hash);
    for (std::size_t i = 0; i < max_probe; ++i) {
        auto& slot = current_.at(home + i);
        if (slot.state == FlowState::Empty)
            return &slot;
        if (!slot.live(now)) {
            --size_;
            return &slot;
        }
    }
    return nullptr;
}

template <class Bits>
auto FlowTable<Bits>::insert(const Key& key, std::uint64_t hash, Nanoseconds now) noexcept
    -> Slot* {
    sweep(sweep_per_insert, now);
    if (2 * (size_ + 1) > current_.capacity && !grow())
        return nullptr;
    Slot* slot = free_slot(hash, now);
    if (slot == nullptr)
        return nullptr;
    *slot = {.local = key.local,
             .remote = key.remote,
             .local_port = key.local_port,
             .remote_port = key.remote_port,
             .protocol = key.protocol};
    ++size_;
    return slot;
}

template <class Bits>
bool FlowTable<Bits>::grow() noexcept {
    if (old_.capacity != 0)  // still moving; half full is no hard limit
        return size_ + 1 < current_.capacity - current_.capacity / 8;
    return move_to(std::max(first_capacity, 2 * current_.capacity)) ||
           (current_.capacity != 0 && size_ + 1 < current_.capacity - current_.capacity / 8);
}

template <class Bits>
bool FlowTable<Bits>::move_to(std::size_t capacity) noexcept {
    auto half = allocate(capacity);
    if (half.capacity == 0)
        return false;
    old_ = std::exchange(current_, std::move(half));
    moved_ = 0;
    cursor_ = 0;
    return true;
}

// The new half is at most a quarter full then, and no more than half full when the old one is
// empty, however many flows begin meanwhile.
template <class Bits>
void FlowTable<Bits>::shrink() noexcept {
    constexpr std::size_t nearly_empty = 16;
    if (old_.capacity != 0 || nearly_empty * size_ > current_.capacity)
        return;
    if (size_ == 0)
        current_ = {};
    else if (current_.capacity > first_capacity)
        std::ignore = move_to(std::max(first_capacity, std::bit_ceil(4 * size_)));
}

template <class Bits>
void FlowTable<Bits>::migrate(std::size_t count, Nanoseconds now) noexcept {
    for (; count != 0 && moved_ < old_.capacity; --count, ++moved_) {
        auto& slot = old_.at(moved_);
        if (slot.state == FlowState::Empty || slot.state == FlowState::Moved)
            continue;
        Slot* place = slot.live(now) ? free_slot(hash(slot.key()), now) : nullptr;
        if (place != nullptr)
            *place = slot;
        else
            --size_;
        slot.state = FlowState::Moved;
    }
    if (moved_ == old_.capacity)
        old_ = {};
}

template <class Bits>
void FlowTable<Bits>::sweep(std::size_t count, Nanoseconds now) noexcept {
    if (old_.capacity != 0) {
        migrate(std::max(count, migrate_per_insert), now);
        return;
    }
    count = std::min(count, current_.capacity);
    for (; count != 0; --count) {
        const auto& slot = current_.at(cursor_);
        // What is shifted into the place of an erased flow is looked at too, hence no step on.
        if (slot.state != FlowState::Empty && !slot.live(now))
            remove_from_current(cursor_ & (current_.capacity - 1));
        else
            ++cursor_;
    }
}

template <class Bits>
void FlowTable<Bits>::erase(Slot* slot) noexcept {
    remove_from_current(static_cast<std::size_t>(slot - current_.slots.get()));
}

// Closes the gap, so that every flow stays reachable from its home without passing a free slot
// (Knuth 6.4, algorithm R).
template <class Bits>
void FlowTable<Bits>::remove_from_current(std::size_t index) noexcept {
    const auto mask = current_.capacity - 1;
    --size_;
    std::size_t gap = index;
    for (std::size_t next = (gap + 1) & mask; next != index; next = (next + 1) & mask) {
        auto& candidate = current_.at(next);
        if (candidate.state == FlowState::Empty)
            break;
        const auto home = current_.home(hash(candidate.key()));
        if (((next - home) & mask) < ((next - gap) & mask))
            continue;  // its home lies after the gap
        current_.at(gap) = candidate;
        gap = next;
    }
    current_.at(gap) = {};
}

template class FlowTable<std::uint32_t>;
template class FlowTable<V6Bits>;

}  // namespace masu::net

// The table of tracked flows of one family: open addressing, one cache miss a search.
//
// Linear probing over 32-byte (IPv4) or 64-byte (IPv6) slots, at most half of them taken, from the
// beginning of a cache line: nearly every search ends in the line it began in, the others in the
// next. The hash is keyed (SipHash-1-3, once a packet): the guest and its peers choose addresses
// and ports, and with a cheaper function, or without the key, could aim many flows at one line; and
// a search looks at no more than max_probe slots whatever happens. The table doubles as it fills
// and shrinks when nearly empty: the old half is moved over a few slots at a time, so no packet
// waits for a rehash; expired flows are dropped when met and by a cursor that each insertion moves
// on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "base/clock.hpp"
#include "devices/net/firewall/flow.hpp"
#include "devices/net/firewall/siphash.hpp"

namespace masu::net {

template <class Bits>
class FlowTable {
  public:
    using Key = FlowKey<Bits>;
    using Slot = Flow<Bits>;
    static constexpr std::size_t first_capacity = 256;
    static constexpr std::size_t max_probe = 128;

    explicit FlowTable(const SipKey& key) noexcept : key_(key) {}

    [[nodiscard]] std::uint64_t hash(const Key& key) const noexcept;
    // Starts the load of the slots that find(hash) looks at first.
    void prefetch(std::uint64_t hash) const noexcept;

    // The live flow, or null. The pointer is good until the next call that is not const.
    [[nodiscard]] Slot* find(const Key& key, std::uint64_t hash, Nanoseconds now) noexcept;
    // A slot for a key that find() did not find, its key filled in and its state for the caller to
    // set (not Empty, not Moved). Null when there is no memory, or no room where it would have to
    // be.
    [[nodiscard]] Slot* insert(const Key& key, std::uint64_t hash, Nanoseconds now) noexcept;
    void erase(Slot* slot) noexcept;

    // Drops what has expired among the next `count` slots, and moves as many out of the old half.
    void sweep(std::size_t count, Nanoseconds now) noexcept;
    // Gives memory back when the table is nearly empty.
    void shrink() noexcept;

    // Flows that were put in and not yet dropped, expired ones among them.
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    // Of both halves, in bytes.
    [[nodiscard]] std::size_t memory() const noexcept {
        return (current_.capacity + old_.capacity) * sizeof(Slot);
    }

    template <class Visitor>
    void for_each_live(Nanoseconds now, Visitor&& visit) const {
        for (const auto* half : {&current_, &old_})
            for (std::size_t i = 0; i < half->capacity; ++i)
                if (half->slots.get()[i].live(now))
                    visit(std::as_const(half->slots.get()[i]));
    }

  private:
    struct Unmap {
        std::size_t bytes = 0;
        void operator()(Slot* slots) const noexcept;
    };
    struct Half {
        std::unique_ptr<Slot, Unmap> slots;
        std::size_t capacity = 0;  // a power of two, or 0
        // The first slot of a line. The mapping begins at a page.
        [[nodiscard]] std::size_t home(std::uint64_t hash) const noexcept {
            constexpr std::size_t a_line = 64 / sizeof(Slot);
            return static_cast<std::size_t>(hash) & (capacity - 1) & ~(a_line - 1);
        }
        [[nodiscard]] Slot& at(std::size_t index) const noexcept {
            return slots.get()[index & (capacity - 1)];
        }
    };
    [[nodiscard]] static Half allocate(std::size_t capacity) noexcept;

    [[nodiscard]] bool grow() noexcept;
    [[nodiscard]] bool move_to(std::size_t capacity) noexcept;
    void migrate(std::size_t count, Nanoseconds now) noexcept;
    [[nodiscard]] Slot* free_slot(std::uint64_t hash, Nanoseconds now) noexcept;
    [[nodiscard]] Slot* find_in_old(const Key& key, std::uint64_t hash, Nanoseconds now) noexcept;
    void remove_from_current(std::size_t index) noexcept;

    SipKey key_;
    Half current_;
    Half old_;                // being emptied; capacity 0 when there is none
    std::size_t moved_ = 0;   // slots of old_ that are done
    std::size_t cursor_ = 0;  // of the sweep over current_
    std::size_t size_ = 0;
};

}  // namespace masu::net

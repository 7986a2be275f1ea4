// Which pages of guest memory the devices wrote: the half of a dirty log that KVM does not see.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace masu {

// One bit for each page of 4 KiB of one mapping that holds all of the guest's RAM, in its order.
// Switched off it costs a test. Any thread. What is marked was written before the mark; what take()
// returns was marked before, so whoever copies pages after take() has those bytes, or finds them
// marked the next time.
class DirtyPages {
  public:
    static constexpr std::size_t page_size = 4096;

    explicit DirtyPages(std::span<const std::byte> ram) noexcept : ram_(ram) {}

    // Marks count from now on. Idempotent.
    void start();
    void stop() noexcept { on_.store(false, std::memory_order_release); }

    // The host bytes [start, start + size) were written. Those outside of the mapping are nobody's.
    void mark(const void* start, std::size_t size) noexcept {
        // Acquire: pairs with start(), which allocates the words.
        if (on_.load(std::memory_order_acquire))
            set(static_cast<const std::byte*>(start), size);
    }

    // Adds the marked pages to `into` (64 pages a word, from the least significant bit) and forgets
    // them.
    void take(std::span<std::uint64_t> into) noexcept;

  private:
    void set(const std::byte* start, std::size_t size) noexcept;

    std::span<const std::byte> ram_;
    std::atomic<bool> on_{false};
    std::unique_ptr<std::atomic<std::uint64_t>[]> words_;
    std::size_t word_count_ = 0;
};

}  // namespace masu

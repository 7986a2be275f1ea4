#include "devices/dirty_pages.hpp"

#include <algorithm>

namespace masu {

void DirtyPages::start() {
    if (!words_) {
        word_count_ = (ram_.size() / page_size + 63) / 64;
        words_ = std::make_unique<std::atomic<std::uint64_t>[]>(word_count_);
    }
    on_.store(true, std::memory_order_release);
}

void DirtyPages::set(const std::byte* start, std::size_t size) noexcept {
    const auto begin = reinterpret_cast<std::uintptr_t>(ram_.data());
    const auto at = reinterpret_cast<std::uintptr_t>(start);
    if (size == 0 || at < begin || at - begin >= ram_.size())
        return;
    const auto offset = at - begin;
    const auto last = (offset + std::min(size, ram_.size() - offset) - 1) / page_size;
    // Release: pairs with the exchange in take(). Always a write, also of a bit that seems set: a
    // plain look at it could come before our bytes are visible, and after take() had seen the bit.
    for (auto page = offset / page_size; page <= last; ++page)
        words_[page / 64].fetch_or(std::uint64_t{1} << (page % 64), std::memory_order_acq_rel);
}

void DirtyPages::take(std::span<std::uint64_t> into) noexcept {
    for (std::size_t i = 0; i < std::min(word_count_, into.size()); ++i)
        if (words_[i].load(std::memory_order_relaxed) != 0)
            into[i] |= words_[i].exchange(0, std::memory_order_acq_rel);
}

}  // namespace masu

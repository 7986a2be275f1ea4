// A set of pages of guest memory.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace masu {

inline constexpr std::size_t guest_page = 4096;  // bytes

// Pages [first, first + count) of the memory file's order (see kvm::GuestRam).
struct PageRun {
    std::uint64_t first = 0;
    std::uint64_t count = 0;
    bool operator==(const PageRun&) const = default;
};

// Plain value: 64 pages a word, from the least significant bit. Bits past the last page are 0.
class PageSet {
  public:
    PageSet() = default;
    explicit PageSet(std::size_t pages) : pages_(pages), words_((pages + 63) / 64) {}

    [[nodiscard]] std::size_t pages() const noexcept { return pages_; }  // in the set or not
    [[nodiscard]] std::span<std::uint64_t> words() noexcept { return words_; }
    [[nodiscard]] std::span<const std::uint64_t> words() const noexcept { return words_; }

    void add(std::size_t page) noexcept { words_[page / 64] |= std::uint64_t{1} << (page % 64); }
    [[nodiscard]] bool has(std::size_t page) const noexcept {
        return (words_[page / 64] >> (page % 64) & 1) != 0;
    }
    [[nodiscard]] std::size_t count() const noexcept {
        std::size_t total = 0;
        for (const auto word : words_)
            total += static_cast<std::size_t>(std::popcount(word));
        return total;
    }
    void clear() noexcept { std::ranges::fill(words_, 0); }
    // Of two sets of one memory.
    void merge(const PageSet& other) noexcept {
        for (std::size_t i = 0; i < std::min(words_.size(), other.words_.size()); ++i)
            words_[i] |= other.words_[i];
    }

    // Ascending, none touching the next.
    [[nodiscard]] std::vector<PageRun> runs() const {
        std::vector<PageRun> found;
        for (std::size_t page = next(0, true); page < pages_;) {
            const auto end = next(page, false);
            found.push_back({.first = page, .count = end - page});
            page = next(end, true);
        }
        return found;
    }

  private:
    // The first page from `page` on that is in the set (or not); pages() if there is none.
    [[nodiscard]] std::size_t next(std::size_t page, bool in) const noexcept {
        while (page < pages_) {
            const auto word = (in ? words_[page / 64] : ~words_[page / 64]) >> (page % 64);
            if (word != 0)
                return std::min(pages_, page + static_cast<std::size_t>(std::countr_zero(word)));
            page = (page / 64 + 1) * 64;
        }
        return pages_;
    }

    std::size_t pages_ = 0;
    std::vector<std::uint64_t> words_;
};

}  // namespace masu

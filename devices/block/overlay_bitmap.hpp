// Which blocks an overlay holds: its bitmap, in pages that are read in when first needed.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "devices/block/overlay_format.hpp"

namespace masu::block {

// Knows bits and pages, does no I/O: the overlay reads and writes page.io and says what came of it.
// A page in use is pinned and stays; of the others, a bounded number is kept. Block numbers are
// below the layout's block count, and their pages pinned and ready, wherever bits are touched.
class OverlayBitmap {
  public:
    static constexpr std::uint64_t blocks_a_page = overlay_block * 8;  // 128 MiB of disk
    static constexpr std::size_t resident_target = 64;

    enum class State : std::uint8_t { Loading, Ready, Failed };
    struct Page {
        alignas(sector_size) std::array<std::uint64_t, overlay_block / 8> bits;
        iovec io;
        std::uint32_t pins;
        State state;
        bool dirty;
    };

    explicit OverlayBitmap(const OverlayLayout& layout) : pages_(layout.bitmap_pages()) {}

    // Pins; true when the page must be read into page(index).io and reported by loaded().
    [[nodiscard]] bool pin(std::uint64_t index);
    void unpin(std::uint64_t index) noexcept;
    void loaded(std::uint64_t index, bool good) noexcept;
    [[nodiscard]] Page& page(std::uint64_t index) noexcept { return *pages_[index]; }

    [[nodiscard]] bool present(std::uint64_t block) const noexcept;
    // Whether blocks first to last are all present.
    [[nodiscard]] bool all_present(std::uint64_t first, std::uint64_t last) const noexcept;
    void set(std::uint64_t first, std::uint64_t last);

    // Pages with bits that are not on disk yet.
    [[nodiscard]] std::size_t dirty_pages() const noexcept { return dirty_.size(); }
    // Moves their indexes to `to`, pinned and no longer dirty: the caller writes and unpins them.
    void take_dirty(std::vector<std::uint64_t>& to);
    void mark_dirty(std::uint64_t index);

    [[nodiscard]] std::size_t resident_pages() const noexcept { return resident_.size(); }

  private:
    void make_room() noexcept;

    std::vector<std::unique_ptr<Page>> pages_;  // null: not read in
    std::vector<std::uint64_t> resident_;
    std::vector<std::uint64_t> dirty_;
    std::vector<std::unique_ptr<Page>> spare_;
    std::size_t hand_ = 0;  // where in resident_ the search for a page to drop goes on
};

}  // namespace masu::block

// Bits, pages, and which of them stay in memory.
#include "devices/block/overlay_bitmap.hpp"

namespace masu::block {

bool OverlayBitmap::pin(std::uint64_t index) {
    auto& slot = pages_[index];
    if (slot) {
        ++slot->pins;
        return false;
    }
    make_room();
    if (spare_.empty()) {
        slot = std::make_unique<Page>();
    } else {
        slot = std::move(spare_.back());
        spare_.pop_back();
    }
    slot->io = {slot->bits.data(), overlay_block};
    slot->pins = 1;
    slot->state = State::Loading;
    slot->dirty = false;
    resident_.push_back(index);
    return true;
}

void OverlayBitmap::unpin(std::uint64_t index) noexcept {
    auto& slot = pages_[index];
    if (--slot->pins != 0 || slot->state != State::Failed)
        return;
    slot.reset();  // the next request tries to read it again
    std::erase(resident_, index);
}

void OverlayBitmap::loaded(std::uint64_t index, bool good) noexcept {
    pages_[index]->state = good ? State::Ready : State::Failed;
}

void OverlayBitmap::make_room() noexcept {
    for (std::size_t tries = resident_.size(); tries > 0 && resident_.size() >= resident_target;
         --tries) {
        hand_ = hand_ < resident_.size() ? hand_ : 0;
        auto& slot = pages_[resident_[hand_]];
        if (slot->pins != 0 || slot->dirty) {
            ++hand_;
            continue;
        }
        if (spare_.empty())
            spare_.push_back(std::move(slot));
        slot.reset();
        resident_[hand_] = resident_.back();
        resident_.pop_back();
    }
}

bool OverlayBitmap::present(std::uint64_t block) const noexcept {
    const auto& bits = pages_[block / blocks_a_page]->bits;
    return (bits[block % blocks_a_page / 64] >> (block % 64) & 1U) != 0;
}

bool OverlayBitmap::all_present(std::uint64_t first, std::uint64_t last) const noexcept {
    for (std::uint64_t block = first; block <= last; ++block)
        if (!present(block))
            return false;
    return true;
}

void OverlayBitmap::set(std::uint64_t first, std::uint64_t last) {
    for (std::uint64_t block = first; block <= last; ++block) {
        if (present(block))
            continue;
        auto& bits = pages_[block / blocks_a_page]->bits;
        bits[block % blocks_a_page / 64] |= std::uint64_t{1} << (block % 64);
        mark_dirty(block / blocks_a_page);
    }
}

void OverlayBitmap::mark_dirty(std::uint64_t index) {
    auto& slot = pages_[index];
    if (slot->dirty)
        return;
    slot->dirty = true;
    dirty_.push_back(index);
}

void OverlayBitmap::take_dirty(std::vector<std::uint64_t>& to) {
    to.clear();
    to.swap(dirty_);
    for (const auto index : to) {
        pages_[index]->dirty = false;
        ++pages_[index]->pins;
    }
}

}  // namespace masu::block

// How an overlay makes what it holds durable: data, then the bits that stand for it.
#include "devices/block/overlay_disk.hpp"

namespace masu::block {

void OverlayDisk::start_flush() {
    if (phase_ != FlushPhase::Idle || (flush_waiting_.empty() && !flush_wanted_))
        return;
    flush_wanted_ = false;
    flush_serving_.swap(flush_waiting_);
    phase_ = FlushPhase::Data;
    store_->submit(
        {.op = Op::Flush, .token = std::uint64_t{std::to_underlying(Kind::Flush)} << 56});
}

void OverlayDisk::flush_step(int error) {
    if (error == 0 && phase_ == FlushPhase::Data && bitmap_.dirty_pages() != 0)
        write_bitmap();
    else
        end_flush(error);
}

// Every bit set now stands for data that the flush just done made durable: bits do not change while
// phase_ is Data or Bitmap. They only ever go from 0 to 1, so a page torn by a power cut is good.
void OverlayDisk::write_bitmap() {
    phase_ = FlushPhase::Bitmap;
    bitmap_.take_dirty(flush_pages_);
    pages_in_flight_ = flush_pages_.size();
    page_error_ = 0;
    for (const auto index : flush_pages_)
        store_->submit({.op = Op::Write,
                        .offset = layout_.bitmap_start + index * overlay_block,
                        .size = overlay_block,
                        .buffers = {&bitmap_.page(index).io, 1},
                        .token = std::uint64_t{std::to_underlying(Kind::WritePage)} << 56 | index});
}

void OverlayDisk::page_written(int error) {
    if (page_error_ == 0)
        page_error_ = error;
    if (--pages_in_flight_ != 0)
        return;
    if (page_error_ != 0) {
        end_flush(page_error_);
        return;
    }
    phase_ = FlushPhase::Final;
    apply_deferred();
    store_->submit(
        {.op = Op::Flush, .token = std::uint64_t{std::to_underlying(Kind::Flush)} << 56});
}

void OverlayDisk::end_flush(int error) {
    phase_ = FlushPhase::Idle;
    flush_failed_ = error != 0;
    for (const auto index : flush_pages_) {
        if (error != 0)
            bitmap_.mark_dirty(index);
        bitmap_.unpin(index);
    }
    flush_pages_.clear();
    for (const auto token : flush_serving_)
        finished_.push_back({token, error});
    flush_serving_.clear();
    apply_deferred();
}

void OverlayDisk::apply_deferred() {
    for (const auto index : deferred_) {
        const auto& job = *jobs_[index];
        bitmap_.set(job.first, job.last);
        finish(index, 0);
    }
    deferred_.clear();
}

}  // namespace masu::block

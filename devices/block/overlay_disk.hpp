// A copy-on-write disk: reads what it holds from its overlay file and the rest from a shared base.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/fd.hpp"
#include "devices/block/disk.hpp"
#include "devices/block/overlay_bitmap.hpp"
#include "devices/block/overlay_format.hpp"

namespace masu::block {

// Works on any two disks: `base`, never written, and `store`, which holds the overlay file's bytes.
//
// A write that covers whole blocks goes straight to the store; one that covers a block in part,
// when only the base has it, first copies the block up. Presence bits change when such a write is
// done, and reach the store only between two flushes: data durable, bits written, bits durable. So
// a power cut leaves each block old or new, and everything flushed stays. A write that makes blocks
// present holds a claim on them; writes that overlap a claim wait their turn.
class OverlayDisk final : public Disk {
  public:
    // Judges `header`, which is that in `store`, and opens. `path` names the overlay in errors.
    [[nodiscard]] static Result<std::unique_ptr<Disk>> open(std::unique_ptr<Disk> base,
                                                            const BaseIdentity& identity,
                                                            const OverlayHeader& header,
                                                            std::unique_ptr<Disk> store,
                                                            const std::string& path);
    ~OverlayDisk() override;  // waits for what is in flight, and flushes

    [[nodiscard]] std::uint64_t size() const noexcept override { return layout_.virtual_size; }
    [[nodiscard]] bool read_only() const noexcept override { return store_->read_only(); }
    void wake() override {
        base_->wake();
        store_->wake();
    }
    void submit(const Request& request) override;
    void kick() override;
    void reap(std::vector<Completion>& done) override;
    [[nodiscard]] int completion_fd() const noexcept override { return epoll_.get(); }
    void drain(std::vector<Completion>& done) override;
    Result<std::uint64_t> refresh_size() override { return size(); }

    // For tests of the memory bound.
    [[nodiscard]] std::size_t resident_bitmap_pages() const noexcept {
        return bitmap_.resident_pages();
    }

  private:
    static constexpr std::size_t max_runs = 32;         // of one read, in flight at once
    static constexpr std::size_t max_bounces = 32;      // requests copying up at once
    static constexpr std::size_t max_dirty_pages = 32;  // more start a flush of our own

    struct Bounce {
        alignas(overlay_block) std::array<std::byte, 2 * overlay_block> bytes;
    };
    enum class Part : std::uint8_t { Direct, Head, Tail };
    struct Job {
        Request request;
        bool pages_pinned = false;
        bool claims = false;  // makes blocks present
        std::uint32_t in_flight = 0;
        int error = 0;
        std::uint64_t first = 0;  // blocks touched
        std::uint64_t last = 0;
        std::uint64_t cursor = 0;  // a read has got this far
        std::vector<iovec> buffers;
        std::unique_ptr<Bounce> bounce;
        std::array<iovec, 2> bounce_io{};
    };
    // What a write-class request does to the blocks at its two ends.
    struct Edges {
        bool copy_head = false;
        bool copy_tail = false;
    };
    struct Run {
        enum class From : std::uint8_t { Base, Store, Zero } from;
        std::uint64_t offset;
        std::uint64_t size;
        std::size_t first_buffer;
        std::size_t buffer_count;
    };
    enum class Kind : std::uint8_t { Job, LoadPage, WritePage, Flush };
    enum class FlushPhase : std::uint8_t { Idle, Data, Bitmap, Final };

    OverlayDisk(std::unique_ptr<Disk> base, std::unique_ptr<Disk> store,
                const OverlayLayout& layout, Fd epoll, EventFd event);

    [[nodiscard]] std::uint32_t take_job();
    void finish(std::uint32_t index, int error);
    void pump();
    [[nodiscard]] bool busy() const noexcept;

    void start_waiting();
    void pin_pages(Job& job);
    [[nodiscard]] std::optional<OverlayBitmap::State> pages_not_ready(const Job& job) noexcept;
    [[nodiscard]] bool must_wait(const Job& job, std::size_t position) const noexcept;
    [[nodiscard]] Edges edges(const Job& job) const noexcept;
    [[nodiscard]] std::uint64_t block_end(std::uint64_t block) const noexcept;
    void start(std::uint32_t index);

    void read_on(std::uint32_t index);
    [[nodiscard]] Run next_run(const Job& job, std::uint64_t from) const noexcept;
    void write(std::uint32_t index, Edges edges);
    void copy_up(std::uint32_t index, Part part);
    void merge_and_write(std::uint32_t index, Part part);

    void base_done(const Completion& completion);
    void store_done(const Completion& completion);
    void part_done(std::uint32_t index, int error);
    void job_done(std::uint32_t index);

    void start_flush();
    void flush_step(int error);
    void page_written(int error);
    void write_bitmap();
    void end_flush(int error);
    void apply_deferred();

    std::unique_ptr<Disk> base_;
    std::unique_ptr<Disk> store_;
    OverlayLayout layout_;
    Fd epoll_;  // readable when base, store or event_ is
    EventFd event_;
    OverlayBitmap bitmap_;

    std::vector<std::unique_ptr<Job>> jobs_;
    std::vector<std::uint32_t> free_jobs_;
    std::vector<std::uint32_t> waiting_;  // in order of arrival
    std::vector<std::uint32_t> deferred_;
    std::vector<std::unique_ptr<Bounce>> spare_bounces_;
    std::size_t bounces_ = 0;
    std::vector<Completion> finished_;
    std::vector<Completion> scratch_;

    FlushPhase phase_ = FlushPhase::Idle;
    bool flush_wanted_ = false;                 // one of our own
    bool flush_failed_ = false;                 // then we start none of our own
    std::vector<std::uint64_t> flush_waiting_;  // tokens
    std::vector<std::uint64_t> flush_serving_;
    std::vector<std::uint64_t> flush_pages_;
    std::size_t pages_in_flight_ = 0;
    int page_error_ = 0;
};

}  // namespace masu::block

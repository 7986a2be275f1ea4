// The copy-on-write disk: requests, runs, copy-up, claims. Its flush is in overlay_flush.cpp.
#include "devices/block/overlay_disk.hpp"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace masu::block {
namespace {

std::uint64_t job_token(std::uint32_t index, unsigned part) noexcept {
    return std::uint64_t{index} << 8 | part;
}

// Appends the parts of `buffers` that cover [offset, offset + size).
void append_slice(std::span<const iovec> buffers, std::uint64_t offset, std::uint64_t size,
                  std::vector<iovec>& out) {
    for (const auto& buffer : buffers) {
        if (size == 0)
            return;
        if (offset >= buffer.iov_len) {
            offset -= buffer.iov_len;
            continue;
        }
        const auto part = std::min<std::uint64_t>(size, buffer.iov_len - offset);
        out.push_back({static_cast<std::byte*>(buffer.iov_base) + offset, part});
        size -= part;
        offset = 0;
    }
}

// Copies [offset, offset + to.size()) of `buffers` out.
void gather(std::span<const iovec> buffers, std::uint64_t offset, std::span<std::byte> to) {
    for (const auto& buffer : buffers) {
        if (to.empty())
            return;
        if (offset >= buffer.iov_len) {
            offset -= buffer.iov_len;
            continue;
        }
        const auto part = std::min<std::uint64_t>(to.size(), buffer.iov_len - offset);
        std::memcpy(to.data(), static_cast<const std::byte*>(buffer.iov_base) + offset, part);
        to = to.subspan(part);
        offset = 0;
    }
}

bool writes(const Request& request) noexcept {
    return request.op != Op::Read;
}

Result<> add_to_epoll(int epoll, int fd) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
    if (::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        return fail_errno(errno, "cannot watch an overlay's disks");
    return {};
}

}  // namespace

Result<std::unique_ptr<Disk>> OverlayDisk::open(std::unique_ptr<Disk> base,
                                                const BaseIdentity& identity,
                                                const OverlayHeader& header,
                                                std::unique_ptr<Disk> store,
                                                const std::string& path) {
    const auto layout = TRY(check_overlay_header(header, store->size(), identity, path));
    Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll)
        return fail_errno(errno, "cannot create an epoll instance");
    auto event = TRY(EventFd::create());
    for (const int fd : {base->completion_fd(), store->completion_fd(), event.fd()})
        TRY(add_to_epoll(epoll.get(), fd));
    return std::unique_ptr<Disk>(new OverlayDisk(std::move(base), std::move(store), layout,
                                                 std::move(epoll), std::move(event)));
}

OverlayDisk::OverlayDisk(std::unique_ptr<Disk> base, std::unique_ptr<Disk> store,
                         const OverlayLayout& layout, Fd epoll, EventFd event)
    : base_(std::move(base)),
      store_(std::move(store)),
      layout_(layout),
      epoll_(std::move(epoll)),
      event_(std::move(event)),
      bitmap_(layout) {}

OverlayDisk::~OverlayDisk() {
    std::vector<Completion> dropped;
    drain(dropped);
    flush_wanted_ = bitmap_.dirty_pages() != 0;
    drain(dropped);
}

std::uint32_t OverlayDisk::take_job() {
    if (free_jobs_.empty()) {
        jobs_.push_back(std::make_unique<Job>());
        free_jobs_.reserve(jobs_.size());
        return static_cast<std::uint32_t>(jobs_.size() - 1);
    }
    const auto index = free_jobs_.back();
    free_jobs_.pop_back();
    return index;
}

// The first request of all may go on to either side on another thread, which drains.
void OverlayDisk::submit(const Request& request) {
    wake();
    if (request.op == Op::Flush) {
        flush_waiting_.push_back(request.token);
        return;
    }
    std::uint64_t start = request.offset;
    std::uint64_t end = request.offset + request.size;
    if (request.op == Op::Discard) {
        // A hint: blocks covered in part keep their content.
        start = (start + overlay_block - 1) / overlay_block * overlay_block;
        end = end == layout_.virtual_size ? end : end / overlay_block * overlay_block;
    }
    if (start >= end) {
        finished_.push_back({request.token, 0});
        return;
    }
    const auto index = take_job();
    auto& job = *jobs_[index];
    job.request = request;
    job.request.offset = start;
    job.request.size = end - start;
    job.pages_pinned = false;
    job.claims = false;
    job.in_flight = 0;
    job.error = 0;
    job.first = start / overlay_block;
    job.last = (end - 1) / overlay_block;
    job.cursor = start;
    waiting_.push_back(index);
}

void OverlayDisk::finish(std::uint32_t index, int error) {
    auto& job = *jobs_[index];
    finished_.push_back({job.request.token, error});
    for (auto page = job.first / OverlayBitmap::blocks_a_page;
         page <= job.last / OverlayBitmap::blocks_a_page; ++page)
        bitmap_.unpin(page);
    if (job.bounce)
        spare_bounces_.push_back(std::move(job.bounce));
    job.claims = false;
    free_jobs_.push_back(index);
}

void OverlayDisk::kick() {
    pump();
    if (!finished_.empty())
        event_.signal();
}

// Starts all that can be started; what it waits for ends in base_done() or store_done().
void OverlayDisk::pump() {
    start_waiting();
    if (bitmap_.dirty_pages() > max_dirty_pages && phase_ == FlushPhase::Idle && !flush_failed_)
        flush_wanted_ = true;
    start_flush();
    base_->kick();
    store_->kick();
}

void OverlayDisk::reap(std::vector<Completion>& done) {
    event_.take();
    scratch_.clear();
    base_->reap(scratch_);
    for (const auto& completion : scratch_)
        base_done(completion);
    scratch_.clear();
    store_->reap(scratch_);
    for (const auto& completion : scratch_)
        store_done(completion);
    pump();
    done.insert(done.end(), finished_.begin(), finished_.end());
    finished_.clear();
}

void OverlayDisk::drain(std::vector<Completion>& done) {
    for (;;) {
        reap(done);
        if (!busy())
            return;
        scratch_.clear();
        base_->drain(scratch_);
        for (const auto& completion : scratch_)
            base_done(completion);
        scratch_.clear();
        store_->drain(scratch_);
        for (const auto& completion : scratch_)
            store_done(completion);
    }
}

bool OverlayDisk::busy() const noexcept {
    return free_jobs_.size() != jobs_.size() || phase_ != FlushPhase::Idle ||
           !flush_waiting_.empty() || flush_wanted_ || !finished_.empty();
}

void OverlayDisk::start_waiting() {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < waiting_.size(); ++i) {
        const auto index = waiting_[i];
        auto& job = *jobs_[index];
        if (!job.pages_pinned)
            pin_pages(job);
        const auto obstacle = pages_not_ready(job);
        if (obstacle == OverlayBitmap::State::Failed) {
            finish(index, EIO);
        } else if (obstacle || (writes(job.request) && must_wait(job, kept))) {
            waiting_[kept++] = index;
        } else {
            start(index);
        }
    }
    waiting_.resize(kept);
}

void OverlayDisk::pin_pages(Job& job) {
    job.pages_pinned = true;
    for (auto index = job.first / OverlayBitmap::blocks_a_page;
         index <= job.last / OverlayBitmap::blocks_a_page; ++index) {
        if (!bitmap_.pin(index))
            continue;
        store_->submit({.op = Op::Read,
                        .offset = layout_.bitmap_start + index * overlay_block,
                        .size = overlay_block,
                        .buffers = {&bitmap_.page(index).io, 1},
                        .token = std::uint64_t{std::to_underlying(Kind::LoadPage)} << 56 | index});
    }
}

// Loading goes before Failed: a page is let go of only when nothing reads into it.
std::optional<OverlayBitmap::State> OverlayDisk::pages_not_ready(const Job& job) noexcept {
    std::optional<OverlayBitmap::State> obstacle;
    for (auto index = job.first / OverlayBitmap::blocks_a_page;
         index <= job.last / OverlayBitmap::blocks_a_page; ++index) {
        const auto state = bitmap_.page(index).state;
        if (state == OverlayBitmap::State::Loading)
            return state;
        if (state == OverlayBitmap::State::Failed)
            obstacle = state;
    }
    return obstacle;
}

// Behind a claim, behind an earlier write that waits (so that none starves), or for a bounce
// buffer. `position`: how many jobs wait in front.
bool OverlayDisk::must_wait(const Job& job, std::size_t position) const noexcept {
    const auto overlaps = [&](const Job& other) {
        return other.first <= job.last && job.first <= other.last;
    };
    for (const auto& other : jobs_)
        if (other->claims && overlaps(*other))
            return true;
    for (std::size_t i = 0; i < position; ++i)
        if (const auto& other = *jobs_[waiting_[i]]; writes(other.request) && overlaps(other))
            return true;
    const auto copies = edges(job);
    return (copies.copy_head || copies.copy_tail) && spare_bounces_.empty() &&
           bounces_ >= max_bounces;
}

std::uint64_t OverlayDisk::block_end(std::uint64_t block) const noexcept {
    return std::min((block + 1) * overlay_block, layout_.virtual_size);
}

OverlayDisk::Edges OverlayDisk::edges(const Job& job) const noexcept {
    const auto start = job.request.offset;
    const auto end = start + job.request.size;
    const auto covered = [&](std::uint64_t block) {
        return start <= block * overlay_block && end >= block_end(block);
    };
    return {.copy_head = !covered(job.first) && !bitmap_.present(job.first),
            .copy_tail = job.last != job.first && !covered(job.last) && !bitmap_.present(job.last)};
}

void OverlayDisk::start(std::uint32_t index) {
    auto& job = *jobs_[index];
    if (!writes(job.request)) {
        read_on(index);
        return;
    }
    job.claims = !bitmap_.all_present(job.first, job.last);
    write(index, edges(job));
}

// The longest stretch from `from` that one side holds.
OverlayDisk::Run OverlayDisk::next_run(const Job& job, std::uint64_t from) const noexcept {
    const auto end = job.request.offset + job.request.size;
    auto block = from / overlay_block;
    const bool present = bitmap_.present(block);
    while (block_end(block) < end && bitmap_.present(block + 1) == present)
        ++block;
    auto stop = std::min(block_end(block), end);
    if (present)
        return {Run::From::Store, from, stop - from, 0, 0};
    if (from >= base_->size())
        return {Run::From::Zero, from, stop - from, 0, 0};
    stop = std::min(stop, base_->size());
    return {Run::From::Base, from, stop - from, 0, 0};
}

void OverlayDisk::read_on(std::uint32_t index) {
    auto& job = *jobs_[index];
    const auto end = job.request.offset + job.request.size;
    while (job.cursor != end && job.in_flight == 0) {
        // All slices first: submitted requests point into job.buffers.
        std::array<Run, max_runs> runs;
        std::size_t count = 0;
        job.buffers.clear();
        for (; count < max_runs && job.cursor != end; ++count) {
            auto& run = runs[count] = next_run(job, job.cursor);
            run.first_buffer = job.buffers.size();
            append_slice(job.request.buffers, run.offset - job.request.offset, run.size,
                         job.buffers);
            run.buffer_count = job.buffers.size() - run.first_buffer;
            job.cursor += run.size;
        }
        for (const auto& run : std::span(runs).first(count)) {
            const auto buffers =
                std::span<const iovec>(job.buffers).subspan(run.first_buffer, run.buffer_count);
            if (run.from == Run::From::Zero) {
                for (const auto& buffer : buffers)
                    std::memset(buffer.iov_base, 0, buffer.iov_len);
                continue;
            }
            const bool base = run.from == Run::From::Base;
            ++job.in_flight;
            (base ? base_ : store_)
                ->submit({.op = Op::Read,
                          .offset = base ? run.offset : layout_.data_start + run.offset,
                          .size = run.size,
                          .buffers = buffers,
                          .token = job_token(index, std::to_underlying(Part::Direct))});
        }
    }
    if (job.in_flight == 0)
        finish(index, job.error);
}

void OverlayDisk::write(std::uint32_t index, Edges edges) {
    auto& job = *jobs_[index];
    const auto& request = job.request;
    if (edges.copy_head || edges.copy_tail) {
        if (spare_bounces_.empty()) {
            job.bounce = std::make_unique<Bounce>();
            ++bounces_;
            spare_bounces_.reserve(bounces_);
        } else {
            job.bounce = std::move(spare_bounces_.back());
            spare_bounces_.pop_back();
        }
    }
    const auto start = edges.copy_head ? (job.first + 1) * overlay_block : request.offset;
    const auto end = edges.copy_tail ? job.last * overlay_block : request.offset + request.size;
    // Counted before any is submitted: parts may finish in any order.
    job.in_flight =
        (edges.copy_head ? 1U : 0U) + (edges.copy_tail ? 1U : 0U) + (start < end ? 1U : 0U);
    if (start < end) {
        job.buffers.clear();
        const bool data = request.op == Op::Write;
        if (data)
            append_slice(request.buffers, start - request.offset, end - start, job.buffers);
        store_->submit({.op = data ? Op::Write : Op::WriteZeroes,
                        .offset = layout_.data_start + start,
                        .size = end - start,
                        .buffers = job.buffers,
                        .token = job_token(index, std::to_underlying(Part::Direct)),
                        .may_unmap = request.op == Op::Discard || request.may_unmap});
    }
    if (edges.copy_head)
        copy_up(index, Part::Head);
    if (edges.copy_tail)
        copy_up(index, Part::Tail);
}

void OverlayDisk::copy_up(std::uint32_t index, Part part) {
    auto& job = *jobs_[index];
    const unsigned which = part == Part::Head ? 0 : 1;
    const auto offset = (part == Part::Head ? job.first : job.last) * overlay_block;
    const auto bounce = std::span(job.bounce->bytes).subspan(which * overlay_block, overlay_block);
    std::memset(bounce.data(), 0, bounce.size());
    if (offset >= base_->size()) {
        merge_and_write(index, part);
        return;
    }
    job.bounce_io[which] = {bounce.data(), std::min(overlay_block, base_->size() - offset)};
    base_->submit({.op = Op::Read,
                   .offset = offset,
                   .size = job.bounce_io[which].iov_len,
                   .buffers = {&job.bounce_io[which], 1},
                   .token = job_token(index, std::to_underlying(part))});
}

void OverlayDisk::merge_and_write(std::uint32_t index, Part part) {
    auto& job = *jobs_[index];
    const auto& request = job.request;
    const unsigned which = part == Part::Head ? 0 : 1;
    const auto offset = (part == Part::Head ? job.first : job.last) * overlay_block;
    const auto bounce = std::span(job.bounce->bytes).subspan(which * overlay_block, overlay_block);
    const auto start = std::max(offset, request.offset);
    const auto end = std::min(offset + overlay_block, request.offset + request.size);
    const auto target = bounce.subspan(start - offset, end - start);
    if (request.op == Op::Write)
        gather(request.buffers, start - request.offset, target);
    else
        std::memset(target.data(), 0, target.size());
    job.bounce_io[which] = {bounce.data(), overlay_block};
    store_->submit({.op = Op::Write,
                    .offset = layout_.data_start + offset,
                    .size = overlay_block,
                    .buffers = {&job.bounce_io[which], 1},
                    .token = job_token(index, std::to_underlying(part))});
}

void OverlayDisk::base_done(const Completion& completion) {
    const auto index = static_cast<std::uint32_t>(completion.token >> 8);
    const auto part = static_cast<Part>(completion.token & 0xff);
    if (part == Part::Direct || completion.error != 0)
        part_done(index, completion.error);
    else
        merge_and_write(index, part);
}

void OverlayDisk::store_done(const Completion& completion) {
    const auto kind = static_cast<Kind>(completion.token >> 56);
    const auto index = completion.token & ((std::uint64_t{1} << 56) - 1);
    switch (kind) {
        case Kind::Job:
            part_done(static_cast<std::uint32_t>(index >> 8), completion.error);
            break;
        case Kind::LoadPage:
            bitmap_.loaded(index, completion.error == 0);
            break;
        case Kind::WritePage:
            page_written(completion.error);
            break;
        case Kind::Flush:
            flush_step(completion.error);
            break;
    }
}

void OverlayDisk::part_done(std::uint32_t index, int error) {
    auto& job = *jobs_[index];
    if (job.error == 0)
        job.error = error;
    if (--job.in_flight == 0)
        job_done(index);
}

void OverlayDisk::job_done(std::uint32_t index) {
    auto& job = *jobs_[index];
    if (job.error != 0) {
        finish(index, job.error);
    } else if (!writes(job.request)) {
        read_on(index);
    } else if (job.claims && (phase_ == FlushPhase::Data || phase_ == FlushPhase::Bitmap)) {
        // Its bits must not reach the store with a flush that began before its data was there.
        deferred_.push_back(index);
    } else {
        if (job.claims)
            bitmap_.set(job.first, job.last);
        finish(index, 0);
    }
}

}  // namespace masu::block

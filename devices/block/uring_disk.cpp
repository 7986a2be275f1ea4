// The io_uring engine.
#include "devices/block/uring_disk.hpp"

#include <fcntl.h>
#include <time.h>

#include <algorithm>

namespace masu::block {

UringDisk::UringDisk(File file, EventFd event, const io_uring& ring) noexcept
    : file_(std::move(file)), event_(std::move(event)), ring_(ring) {}

Result<std::unique_ptr<Disk>> UringDisk::create(File& file, EventFd& event) {
    // Before the file changes hands, so that a refusal leaves it to the caller.
    io_uring ring{};
    if (const int error = ::io_uring_queue_init(depth, &ring, 0); error < 0)
        return fail_errno(-error, "this host refuses io_uring");
    std::unique_ptr<UringDisk> disk(new UringDisk(std::move(file), std::move(event), ring));
    if (auto started = disk->start(); !started) {
        file = std::move(disk->file_);
        event = std::move(disk->event_);
        return std::unexpected(std::move(started).error());
    }
    return std::unique_ptr<Disk>(std::move(disk));
}

Result<> UringDisk::start() {
    const auto fds = file_.fds();
    if (const int error =
            ::io_uring_register_files(&ring_, fds.data(), static_cast<unsigned>(fds.size()));
        error < 0)
        return fail_errno(-error, "cannot register disk {} with io_uring", file_.path());
    if (const int error = ::io_uring_register_eventfd(&ring_, event_.fd()); error < 0)
        return fail_errno(-error, "cannot register an eventfd with io_uring");
    slots_.reserve(depth);
    free_.reserve(depth);
    for (std::uint16_t slot = depth; slot > 0; --slot)
        free_.push_back(static_cast<std::uint16_t>(slot - 1));
    waiting_.reserve(depth);
    ready_ = true;
    return {};
}

UringDisk::~UringDisk() {
    if (ready_) {
        std::vector<Completion> dropped;
        drain(dropped);
    }
    ::io_uring_unregister_files(&ring_);  // the rest of the teardown happens in the background
    ::io_uring_queue_exit(&ring_);
}

void UringDisk::prepare(std::uint16_t slot) noexcept {
    // There are as many submission entries as slots, and a slot has one operation at a time; only
    // entries the kernel has not taken yet can be in the way.
    io_uring_sqe* entry = ::io_uring_get_sqe(&ring_);
    while (entry == nullptr) {
        enter(0);
        entry = ::io_uring_get_sqe(&ring_);
    }
    const auto& transfer = slots_[slot];
    const auto fd = static_cast<int>(transfer.fd_index());
    const auto buffers = transfer.buffers();
    const auto count = static_cast<unsigned>(buffers.size());
    const auto size = static_cast<off_t>(transfer.size());
    const auto offset = static_cast<off_t>(transfer.offset());
    switch (transfer.step()) {
        case Transfer::Step::Read:
            ::io_uring_prep_readv(entry, fd, buffers.data(), count, transfer.offset());
            break;
        case Transfer::Step::Write:
            ::io_uring_prep_writev(entry, fd, buffers.data(), count, transfer.offset());
            break;
        case Transfer::Step::Sync:
            ::io_uring_prep_fsync(entry, fd, IORING_FSYNC_DATASYNC);
            break;
        case Transfer::Step::PunchHole:
            ::io_uring_prep_fallocate(entry, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
                                      size);
            break;
        case Transfer::Step::ZeroRange:
            ::io_uring_prep_fallocate(entry, fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset,
                                      size);
            break;
    }
    entry->flags |= IOSQE_FIXED_FILE;
    ::io_uring_sqe_set_data64(entry, slot);
    ++prepared_;
}

void UringDisk::enter(unsigned wait_for) noexcept {
    const int result =
        wait_for == 0 ? ::io_uring_submit(&ring_) : ::io_uring_submit_and_wait(&ring_, wait_for);
    if (result >= 0) {
        prepared_ -= std::min(prepared_, static_cast<unsigned>(result));
        return;
    }
    if (result == -EINTR)
        return;
    // The kernel is out of memory for requests right now (EAGAIN, EBUSY): breathe and go on.
    const timespec pause{.tv_sec = 0, .tv_nsec = 100'000};
    ::nanosleep(&pause, nullptr);
}

void UringDisk::kick() {
    while (next_waiting_ != waiting_.size() && !free_.empty()) {
        const auto slot = free_.back();
        free_.pop_back();
        if (slot == slots_.size())  // new ones come in order
            slots_.emplace_back();
        slots_[slot].start(file_, waiting_[next_waiting_++]);
        prepare(slot);
    }
    if (next_waiting_ == waiting_.size() || next_waiting_ >= depth) {
        waiting_.erase(waiting_.begin(),
                       waiting_.begin() + static_cast<std::ptrdiff_t>(next_waiting_));
        next_waiting_ = 0;
    }
    if (prepared_ == 0)
        return;
    enter(0);
    if (prepared_ != 0)
        event_.signal();  // reap() tries again
}

void UringDisk::harvest(std::vector<Completion>& done) noexcept {
    io_uring_cqe* entry = nullptr;
    while (::io_uring_peek_cqe(&ring_, &entry) == 0 && entry != nullptr) {
        const auto slot = static_cast<std::uint16_t>(::io_uring_cqe_get_data64(entry));
        const int result = entry->res;
        ::io_uring_cqe_seen(&ring_, entry);
        if (const auto error = slots_[slot].advance(result)) {
            done.push_back({slots_[slot].token(), *error});
            free_.push_back(slot);
        } else {
            prepare(slot);
        }
    }
}

void UringDisk::reap(std::vector<Completion>& done) {
    event_.take();
    harvest(done);
    kick();
}

void UringDisk::drain(std::vector<Completion>& done) {
    for (;;) {
        reap(done);
        if (free_.size() == depth && next_waiting_ == waiting_.size())
            return;
        enter(1);
    }
}

}  // namespace masu::block

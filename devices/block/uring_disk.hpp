// A disk over io_uring: asynchronous, one system call a batch.
#pragma once

#include <liburing.h>

#include <vector>

#include "base/fd.hpp"
#include "devices/block/disk.hpp"
#include "devices/block/file.hpp"
#include "devices/block/transfer.hpp"

namespace masu::block {

class UringDisk final : public Disk {
  public:
    // Fails with os_errno set where the host forbids io_uring (ENOSYS, EPERM, a seccomp filter);
    // `file` and `event`, which is to tell of completions, are left untouched then, for another
    // engine.
    [[nodiscard]] static Result<std::unique_ptr<Disk>> create(File& file, EventFd& event);
    ~UringDisk() override;

    [[nodiscard]] std::uint64_t size() const noexcept override { return file_.size(); }
    [[nodiscard]] bool read_only() const noexcept override { return file_.read_only(); }
    void submit(const Request& request) override { waiting_.push_back(request); }
    void kick() override;
    void reap(std::vector<Completion>& done) override;
    [[nodiscard]] int completion_fd() const noexcept override { return event_.fd(); }
    void drain(std::vector<Completion>& done) override;
    Result<std::uint64_t> refresh_size() override { return file_.refresh_size(); }

  private:
    // Requests beyond this wait here, in order. Completions have room for twice as many, so the
    // completion ring never overflows.
    static constexpr unsigned depth = 128;

    UringDisk(File file, EventFd event, const io_uring& ring) noexcept;
    [[nodiscard]] Result<> start();
    void prepare(std::uint16_t slot) noexcept;
    void harvest(std::vector<Completion>& done) noexcept;
    void enter(unsigned wait_for) noexcept;

    File file_;
    EventFd event_;
    io_uring ring_;
    bool ready_ = false;           // to take requests
    std::vector<Transfer> slots_;  // as many as were ever in use at once; none moves
    std::vector<std::uint16_t> free_;
    std::vector<Request> waiting_;
    std::size_t next_waiting_ = 0;  // waiting_ before this has been started
    unsigned prepared_ = 0;         // in the submission ring, not yet given to the kernel
};

}  // namespace masu::block

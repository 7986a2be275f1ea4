// A disk that works with blocking system calls, for hosts that forbid io_uring.
#pragma once

#include <vector>

#include "base/fd.hpp"
#include "devices/block/disk.hpp"
#include "devices/block/file.hpp"
#include "devices/block/transfer.hpp"

namespace masu::block {

class SyncDisk final : public Disk {
  public:
    SyncDisk(File file, EventFd event) noexcept
        : file_(std::move(file)), event_(std::move(event)) {}

    [[nodiscard]] std::uint64_t size() const noexcept override { return file_.size(); }
    [[nodiscard]] bool read_only() const noexcept override { return file_.read_only(); }
    void submit(const Request& request) override;  // does the work
    void kick() override;
    void reap(std::vector<Completion>& done) override;
    [[nodiscard]] int completion_fd() const noexcept override { return event_.fd(); }
    void drain(std::vector<Completion>& done) override { reap(done); }
    Result<std::uint64_t> refresh_size() override { return file_.refresh_size(); }

  private:
    File file_;
    EventFd event_;
    Transfer transfer_;
    std::vector<Completion> finished_;
};

}  // namespace masu::block

// One request on its way to a file: which system call comes next, and what its result means.
// Both engines share it, so that short transfers and fallbacks are decided in one place.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "devices/block/disk.hpp"
#include "devices/block/file.hpp"

namespace masu::block {

class Transfer {
  public:
    enum class Step : std::uint8_t {
        Read,       // preadv(offset, buffers)
        Write,      // pwritev(offset, buffers)
        Sync,       // fdatasync
        PunchHole,  // fallocate(PUNCH_HOLE | KEEP_SIZE, offset, size)
        ZeroRange,  // fallocate(ZERO_RANGE | KEEP_SIZE, offset, size)
    };

    void start(const File& file, const Request& request) noexcept;

    [[nodiscard]] Step step() const noexcept { return step_; }
    [[nodiscard]] std::uint64_t offset() const noexcept { return request_.offset + done_; }
    [[nodiscard]] std::uint64_t size() const noexcept { return request_.size - done_; }
    [[nodiscard]] std::span<const iovec> buffers() const noexcept;
    [[nodiscard]] unsigned fd_index() const noexcept { return file_->pick(offset(), buffers()); }
    [[nodiscard]] std::uint64_t token() const noexcept { return request_.token; }

    // Takes the step's result: bytes moved, 0, or a negative errno. The completion's error when the
    // request is done with, nullopt when another step is due.
    [[nodiscard]] std::optional<int> advance(std::int64_t result) noexcept;

    // The whole request with blocking system calls; its error.
    [[nodiscard]] int run() noexcept;

  private:
    [[nodiscard]] std::optional<int> moved(std::uint64_t bytes) noexcept;
    [[nodiscard]] std::optional<int> fall_back(int error) noexcept;
    [[nodiscard]] std::int64_t perform() const noexcept;
    void begin_zero_fill() noexcept;

    const File* file_ = nullptr;
    Request request_;
    Step step_ = Step::Read;
    std::uint64_t done_ = 0;   // bytes of Read, Write or zero fill
    bool resumed_ = false;     // rest_ replaces the request's buffers
    std::vector<iovec> rest_;  // what a short transfer left, or zeros to write
    bool zero_fill_ = false;
};

}  // namespace masu::block

// Owners of kernel resources: a file descriptor, and a memory mapping.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "base/result.hpp"

namespace masu {

// Owns one file descriptor; closes it on destruction. Move-only. Any thread, one at a time.
class Fd {
  public:
    Fd() noexcept = default;
    explicit Fd(int fd) noexcept : fd_(fd) {}
    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Fd& operator=(Fd&& other) noexcept {
        if (this != &other)
            reset(std::exchange(other.fd_, -1));
        return *this;
    }
    ~Fd() { reset(); }

    [[nodiscard]] int get() const noexcept { return fd_; }
    [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
    explicit operator bool() const noexcept { return fd_ >= 0; }
    void reset(int fd = -1) noexcept;

    // A second descriptor of the same open file description, close-on-exec.
    [[nodiscard]] Result<Fd> duplicate() const;

  private:
    int fd_ = -1;
};

// Owns one mmap()ed range; unmaps it on destruction. Move-only.
class Mapping {
  public:
    Mapping() noexcept = default;
    Mapping(Mapping&& other) noexcept
        : address_(std::exchange(other.address_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    Mapping& operator=(Mapping&& other) noexcept;
    ~Mapping();

    // mmap() with the kernel choosing the address. `what` names the range in the error.
    [[nodiscard]] static Result<Mapping> create(const char* what, std::size_t size, int protection,
                                                int flags, int fd = -1, std::uint64_t offset = 0);

    [[nodiscard]] std::byte* data() const noexcept { return address_; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {address_, size_}; }

  private:
    Mapping(std::byte* address, std::size_t size) noexcept : address_(address), size_(size) {}
    std::byte* address_ = nullptr;
    std::size_t size_ = 0;
};

// An eventfd: a counter that one side adds to and the other waits for. Thread-safe.
class EventFd {
  public:
    // Non-blocking, close-on-exec, counter 0.
    [[nodiscard]] static Result<EventFd> create();

    void signal() const noexcept;         // adds 1; never blocks
    std::uint64_t take() const noexcept;  // the counter, reset to 0; 0 when nothing was signalled
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }

  private:
    explicit EventFd(Fd fd) noexcept : fd_(std::move(fd)) {}
    Fd fd_;
};

}  // namespace masu

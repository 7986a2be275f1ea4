// A buffer of zeros whose pages cost memory, and the time to fetch them, only once they are used.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <utility>

namespace masu {

// A mapping of its own, of a fixed size. calloc() would clear what it takes from the heap, and so
// touch every page.
class ZeroedBytes {
  public:
    ZeroedBytes() noexcept = default;
    explicit ZeroedBytes(std::size_t size) {
        if (size == 0)
            return;
        void* mapping =
            ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapping == MAP_FAILED)
            throw std::bad_alloc();
        bytes_ = static_cast<std::byte*>(mapping);
        size_ = size;
    }
    ZeroedBytes(ZeroedBytes&& other) noexcept
        : bytes_(std::exchange(other.bytes_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    ZeroedBytes& operator=(ZeroedBytes&& other) noexcept {
        std::swap(bytes_, other.bytes_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~ZeroedBytes() {
        if (bytes_ != nullptr)
            ::munmap(bytes_, size_);
    }

    [[nodiscard]] std::byte* data() noexcept { return bytes_; }
    [[nodiscard]] const std::byte* data() const noexcept { return bytes_; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    // For std::span.
    [[nodiscard]] std::byte* begin() noexcept { return data(); }
    [[nodiscard]] std::byte* end() noexcept { return data() + size_; }
    [[nodiscard]] const std::byte* begin() const noexcept { return data(); }
    [[nodiscard]] const std::byte* end() const noexcept { return data() + size_; }

  private:
    std::byte* bytes_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace masu

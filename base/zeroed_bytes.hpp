// A buffer of zeros whose pages cost memory, and the time to fetch them, only once they are used.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace masu {

// Its size is fixed. calloc() knows which memory the kernel has just given, and is zero untouched.
class ZeroedBytes {
  public:
    ZeroedBytes() noexcept = default;
    explicit ZeroedBytes(std::size_t size)
        : bytes_(static_cast<std::byte*>(std::calloc(size, 1))), size_(size) {
        if (bytes_ == nullptr && size > 0)
            throw std::bad_alloc();
    }

    [[nodiscard]] std::byte* data() noexcept { return bytes_.get(); }
    [[nodiscard]] const std::byte* data() const noexcept { return bytes_.get(); }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    // For std::span.
    [[nodiscard]] std::byte* begin() noexcept { return data(); }
    [[nodiscard]] std::byte* end() noexcept { return data() + size_; }
    [[nodiscard]] const std::byte* begin() const noexcept { return data(); }
    [[nodiscard]] const std::byte* end() const noexcept { return data() + size_; }

  private:
    struct Free {
        void operator()(std::byte* bytes) const noexcept { std::free(bytes); }
    };
    std::unique_ptr<std::byte, Free> bytes_;
    std::size_t size_ = 0;
};

}  // namespace masu

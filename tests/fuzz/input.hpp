// A fuzzer's bytes, taken one value at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

namespace masu::fuzz {

// Once the bytes are used up, every value is 0 and done() is true.
class Input {
  public:
    Input(const std::uint8_t* data, std::size_t size) noexcept
        : rest_(std::as_bytes(std::span(data, size))) {}

    [[nodiscard]] bool done() const noexcept { return rest_.empty(); }

    template <class T>
        requires std::is_trivially_copyable_v<T>
    T take() noexcept {
        T value{};
        const auto size = std::min(sizeof value, rest_.size());
        if (size != 0)
            std::memcpy(&value, rest_.data(), size);
        rest_ = rest_.subspan(size);
        return value;
    }
    [[nodiscard]] std::span<const std::byte> take_bytes(std::size_t size) noexcept {
        const auto bytes = rest_.first(std::min(size, rest_.size()));
        rest_ = rest_.subspan(bytes.size());
        return bytes;
    }

  private:
    std::span<const std::byte> rest_;
};

// What must hold, whatever the input: the fuzzer takes a failure for a crash.
inline void require(bool condition) noexcept {
    if (!condition)
        __builtin_trap();
}

}  // namespace masu::fuzz

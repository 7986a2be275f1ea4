// Memory that is only ever taken, from a region the caller gives: the firmware has no heap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

namespace masu::firmware {

// Not thread-safe. Objects made here are never destroyed, so they must not need it. Memory comes
// back by rewinding to a mark, when nothing taken since is used any more.
class Arena {
  public:
    explicit Arena(std::span<std::byte> memory) noexcept : memory_(memory) {}
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    // nullptr when there is not enough left. `alignment` is a power of two.
    [[nodiscard]] void* allocate(std::size_t size, std::size_t alignment) noexcept {
        const auto at = reinterpret_cast<std::uintptr_t>(memory_.data()) + used_;
        const std::size_t padding = (alignment - at % alignment) % alignment;
        const std::size_t left = memory_.size() - used_;
        if (padding > left || size > left - padding)
            return nullptr;
        void* const result = memory_.data() + used_ + padding;
        used_ += padding + size;
        return result;
    }

    // nullptr when there is not enough left.
    template <class T, class... Args>
        requires std::is_trivially_destructible_v<T>
    [[nodiscard]] T* make(Args&&... args) noexcept {
        void* const at = allocate(sizeof(T), alignof(T));
        return at == nullptr ? nullptr : ::new (at) T(std::forward<Args>(args)...);
    }

    // `count` values, zero-initialized; empty when there is not enough left (or count is 0).
    template <class T>
        requires std::is_trivially_destructible_v<T>
    [[nodiscard]] std::span<T> make_array(std::size_t count) noexcept {
        if (count == 0 || count > std::numeric_limits<std::size_t>::max() / sizeof(T))
            return {};
        void* const at = allocate(count * sizeof(T), alignof(T));
        if (at == nullptr)
            return {};
        T* const first = static_cast<T*>(at);
        if constexpr (std::is_trivially_default_constructible_v<T>) {
            std::memset(at, 0, count * sizeof(T));
            return {first, count};
        }
        for (std::size_t i = 0; i < count; ++i)
            ::new (static_cast<void*>(first + i)) T{};
        return {first, count};
    }

    [[nodiscard]] std::size_t mark() const noexcept { return used_; }
    void rewind(std::size_t mark) noexcept {
        if (mark < used_)
            used_ = mark;
    }
    [[nodiscard]] std::size_t left() const noexcept { return memory_.size() - used_; }

  private:
    std::span<std::byte> memory_;
    std::size_t used_ = 0;
};

}  // namespace masu::firmware

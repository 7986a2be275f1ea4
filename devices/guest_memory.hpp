// Guest memory as the devices see it: checked copies in and out, and spans for I/O.
#pragma once

#include <atomic>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "devices/dirty_pages.hpp"

namespace masu {

// A guest-physical address (bytes).
struct GuestAddress {
    std::uint64_t value = 0;
    constexpr auto operator<=>(const GuestAddress&) const = default;
    // Wraps like the hardware would; every access is range-checked afterwards.
    constexpr GuestAddress operator+(std::uint64_t offset) const { return {value + offset}; }
};

// Views of the guest's RAM; owns nothing (vmm/ owns the mappings, which outlive every GuestMemory).
// Immutable after construction, so it may be used from any thread; the bytes themselves are shared
// with the running guest, which may change them at any moment. Therefore: copy a value in once
// (load/read), judge the copy, use the copy. No function here aborts on a bad address.
class GuestMemory {
  public:
    struct Region {
        GuestAddress start;
        std::span<std::byte> bytes;
    };

    // Regions must not overlap; at most a handful (a lookup is a short linear scan).
    // `dirty`, if given, outlives it and hears of every write.
    explicit GuestMemory(std::vector<Region> regions, DirtyPages* dirty = nullptr)
        : regions_(std::move(regions)), dirty_(dirty) {}

    [[nodiscard]] const std::vector<Region>& regions() const noexcept { return regions_; }
    [[nodiscard]] std::uint64_t total_bytes() const noexcept;

    // The host bytes of [address, address + size), or empty when they do not all lie in one region.
    // For I/O into and out of the guest only: never parse through it, copy with load()/read(). Who
    // writes there says so afterwards, with wrote().
    // A zero-size slice of a valid address is an engaged optional with an empty span.
    [[nodiscard]] std::optional<std::span<std::byte>> slice(GuestAddress address,
                                                            std::uint64_t size) const noexcept;

    [[nodiscard]] bool read(GuestAddress from, std::span<std::byte> to) const noexcept;
    [[nodiscard]] bool write(GuestAddress to, std::span<const std::byte> from) const noexcept;

    // Bytes of a slice were written: for the dirty log, where there is one.
    void wrote(const void* start, std::size_t size) const noexcept {
        if (dirty_ != nullptr)
            dirty_->mark(start, size);
    }

    // One copy of a T, or nullopt when the range is not RAM.
    template <class T>
        requires std::is_trivially_copyable_v<T>
    [[nodiscard]] std::optional<T> load(GuestAddress from) const noexcept {
        const auto bytes = slice(from, sizeof(T));
        if (!bytes)
            return std::nullopt;
        T value;
        std::memcpy(&value, bytes->data(), sizeof value);
        return value;
    }
    template <class T>
        requires std::is_trivially_copyable_v<T>
    [[nodiscard]] bool store(GuestAddress to, const T& value) const noexcept {
        return write(to, std::as_bytes(std::span(&value, 1)));
    }

    // A naturally aligned 16-bit word for ring indices, or null (unaligned or not RAM). Access it
    // through std::atomic_ref and name the pairing at the call.
    [[nodiscard]] std::uint16_t* ring_word(GuestAddress address) const noexcept;

  private:
    std::vector<Region> regions_;
    DirtyPages* dirty_ = nullptr;
};

}  // namespace masu

// Saved state as plain bytes: little-endian values without padding, one after another, and a reader
// that never goes past the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/result.hpp"

namespace masu {

// What may be written as it lies in memory: no pointers (by convention), and no padding, whose
// bytes would be indeterminate and so differ between two saves of one state.
template <class T>
concept PlainData = std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>;

// Appends values. One thread at a time.
class PlainWriter {
  public:
    template <PlainData T>
    void put(const T& value) {
        put_raw(std::as_bytes(std::span(&value, 1)));
    }
    // A 32-bit count, then the elements.
    template <PlainData T>
    void put_list(std::span<const T> values) {
        put(static_cast<std::uint32_t>(values.size()));
        put_raw(std::as_bytes(values));
    }
    void put_text(std::string_view text) { put_list(std::span<const char>(text)); }
    void put_raw(std::span<const std::byte> bytes) {
        bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    }

    [[nodiscard]] std::vector<std::byte> take() && { return std::move(bytes_); }

  private:
    std::vector<std::byte> bytes_;
};

// Reads what a PlainWriter wrote, from bytes that anyone may have made. Like the JSON reader it
// never stops half-way: what is not there reads as zero, and finish() tells of the first complaint.
class PlainReader {
  public:
    // `what` names the bytes in errors ("section vcpu 0"). The bytes outlive the reader.
    PlainReader(std::span<const std::byte> bytes, std::string what)
        : rest_(bytes), what_(std::move(what)) {}

    template <PlainData T>
    [[nodiscard]] T get() {
        T value{};
        if (take(sizeof(T)))
            std::memcpy(&value, taken_.data(), sizeof(T));
        return value;
    }
    // At most `limit` elements; more is a complaint, and nothing is allocated for them.
    template <PlainData T>
    [[nodiscard]] std::vector<T> get_list(std::size_t limit) {
        const auto count = get<std::uint32_t>();
        if (count > limit) {
            complain(fmt::format("a list of {} where at most {} may be", count, limit));
            return {};
        }
        std::vector<T> values;
        if (take(count * sizeof(T)) && count != 0) {
            values.resize(count);
            std::memcpy(values.data(), taken_.data(), count * sizeof(T));
        }
        return values;
    }
    [[nodiscard]] std::string get_text(std::size_t limit) {
        const auto characters = get_list<char>(limit);
        return {characters.begin(), characters.end()};
    }

    // For the caller's own rules; the first complaint is kept.
    void complain(std::string why) {
        if (complaint_.empty())
            complaint_ = std::move(why);
        rest_ = {};
    }
    [[nodiscard]] bool good() const noexcept { return complaint_.empty(); }
    // Everything was there, and nothing is left.
    [[nodiscard]] Result<> finish() const {
        if (!complaint_.empty())
            return fail("{} is damaged: {}", what_, complaint_);
        if (!rest_.empty())
            return fail("{} is damaged: {} bytes too many", what_, rest_.size());
        return {};
    }

  private:
    bool take(std::size_t size) {
        if (size > rest_.size()) {
            complain("it ends too early");
            return false;
        }
        taken_ = rest_.first(size);
        rest_ = rest_.subspan(size);
        return true;
    }

    std::span<const std::byte> rest_;
    std::span<const std::byte> taken_;
    std::string what_;
    std::string complaint_;
};

}  // namespace masu

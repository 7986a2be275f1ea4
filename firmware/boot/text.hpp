// Text without a heap: bounded messages, and cutting strings up.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>

#include "firmware/arena.hpp"

namespace masu::firmware {

// Text of at most N bytes; what does not fit is cut and ends with "...".
template <std::size_t N>
class Text {
  public:
    Text& put(std::string_view text) noexcept {
        const std::size_t room = N - size_;
        std::ranges::copy(std::span(text).first(std::min(room, text.size())),
                          bytes_.data() + size_);
        if (text.size() <= room) {
            size_ += text.size();
            return *this;
        }
        size_ = N;
        std::memcpy(bytes_.data() + N - 3, "...", 3);
        return *this;
    }
    Text& put(std::uint64_t number) noexcept {
        std::array<char, 20> digits;
        std::size_t at = digits.size();
        do {
            digits[--at] = static_cast<char>('0' + number % 10);
            number /= 10;
        } while (number != 0);
        return put(std::string_view(digits.data() + at, digits.size() - at));
    }
    // For a person: control characters, which a disk's names may hold, become "?".
    Text& put_visible(std::string_view text) noexcept {
        for (const char c : text)
            put(static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? "?" : std::string_view(&c, 1));
        return *this;
    }
    [[nodiscard]] std::string_view view() const noexcept { return {bytes_.data(), size_}; }
    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }

  private:
    std::array<char, N> bytes_;
    std::size_t size_ = 0;
};

// What went wrong with a boot configuration, in one sentence.
using Message = Text<400>;

[[nodiscard]] constexpr bool is_blank(char c) noexcept {
    return c == ' ' || c == '\t' || c == '\r';
}
[[nodiscard]] constexpr bool is_digit(char c) noexcept {
    return c >= '0' && c <= '9';
}
[[nodiscard]] constexpr bool is_name(char c) noexcept {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
[[nodiscard]] constexpr char to_lower(char c) noexcept {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
}

// text.substr() that never throws.
[[nodiscard]] constexpr std::string_view part(std::string_view text, std::size_t from,
                                              std::size_t size = std::string_view::npos) noexcept {
    if (from >= text.size())
        return {};
    return {text.data() + from, std::min(size, text.size() - from)};
}

[[nodiscard]] constexpr std::string_view trim(std::string_view text) noexcept {
    while (!text.empty() && (is_blank(text.front()) || text.front() == '\n'))
        text.remove_prefix(1);
    while (!text.empty() && (is_blank(text.back()) || text.back() == '\n'))
        text.remove_suffix(1);
    return text;
}

// Takes the text up to the next `separator` off the front of `rest`.
[[nodiscard]] constexpr std::string_view take_until(std::string_view& rest,
                                                    char separator) noexcept {
    const std::size_t at = rest.find(separator);
    const std::string_view taken = part(rest, 0, at);
    rest = at == std::string_view::npos ? std::string_view{} : part(rest, at + 1);
    return taken;
}

// Takes the next word, as blanks part them, off the front; empty at the end.
[[nodiscard]] constexpr std::string_view take_word(std::string_view& rest) noexcept {
    while (!rest.empty() && is_blank(rest.front()))
        rest.remove_prefix(1);
    std::size_t size = 0;
    while (size < rest.size() && !is_blank(rest[size]))
        ++size;
    const std::string_view word = part(rest, 0, size);
    rest = part(rest, size);
    return word;
}

[[nodiscard]] constexpr bool same_without_case(std::string_view a, std::string_view b) noexcept {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](char x, char y) { return to_lower(x) == to_lower(y); });
}

// Digits only, and not too many of them.
[[nodiscard]] constexpr std::optional<std::uint64_t> parse_number(std::string_view text) noexcept {
    if (text.empty() || text.size() > 18)
        return std::nullopt;
    std::uint64_t value = 0;
    for (const char c : text) {
        if (!is_digit(c))
            return std::nullopt;
        value = value * 10 + static_cast<std::uint64_t>(c - '0');
    }
    return value;
}

// Text that grows at the end of an arena. While it grows nothing else may take from that arena.
class TextBuilder {
  public:
    explicit TextBuilder(Arena& arena) noexcept : arena_(&arena) {}
    void put(std::string_view text) noexcept {
        char* const to = static_cast<char*>(arena_->allocate(text.size(), 1));
        if (to == nullptr) {
            failed_ = true;
            return;
        }
        std::ranges::copy(text, to);
        first_ = first_ == nullptr ? to : first_;
        size_ += text.size();
    }
    void put(char c) noexcept { put(std::string_view(&c, 1)); }
    // False when the arena ran out: the text is then incomplete.
    [[nodiscard]] bool ok() const noexcept { return !failed_; }
    [[nodiscard]] std::string_view view() const noexcept { return {first_, size_}; }

  private:
    Arena* arena_;
    char* first_ = nullptr;
    std::size_t size_ = 0;
    bool failed_ = false;
};

// A copy of `text` in the arena; nullopt when there is no room.
[[nodiscard]] inline std::optional<std::string_view> copy_text(Arena& arena,
                                                               std::string_view text) noexcept {
    TextBuilder builder(arena);
    builder.put(text);
    return builder.ok() ? std::optional(builder.view()) : std::nullopt;
}

}  // namespace masu::firmware

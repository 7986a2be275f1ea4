#include "firmware/protocols/file_names.hpp"

#include <cstring>

namespace masu::firmware {
namespace {

class Path {
  public:
    explicit Path(std::span<char, max_path> to) noexcept : to_(to) {}
    bool put(char c) noexcept {
        if (size_ + 1 >= to_.size())
            return false;
        to_[size_++] = c;
        return true;
    }
    // One UTF-16 unit, or a whole pair given as a code point.
    bool put_code(std::uint32_t code) noexcept {
        if (code < 0x80)
            return put(static_cast<char>(code));
        if (code < 0x800)
            return put(static_cast<char>(0xc0 | code >> 6)) && put_tail(code, 0);
        if (code < 0x10000)
            return put(static_cast<char>(0xe0 | code >> 12)) && put_tail(code, 6) &&
                   put_tail(code, 0);
        return put(static_cast<char>(0xf0 | code >> 18)) && put_tail(code, 12) &&
               put_tail(code, 6) && put_tail(code, 0);
    }
    // Drops the last name; false at the root.
    bool climb() noexcept {
        if (size_ == 0)
            return false;
        while (size_ > 0 && to_[size_ - 1] != '/')
            --size_;
        size_ -= size_ > 0 ? 1 : 0;
        return true;
    }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    void cut(std::size_t size) noexcept { size_ = size; }
    [[nodiscard]] std::string_view last_from(std::size_t at) const noexcept {
        return {to_.data() + at, size_ - at};
    }
    std::string_view finish() noexcept {
        to_[size_] = 0;
        return {to_.data(), size_};
    }

  private:
    bool put_tail(std::uint32_t code, unsigned shift) noexcept {
        return put(static_cast<char>(0x80 | (code >> shift & 0x3f)));
    }
    std::span<char, max_path> to_;
    std::size_t size_ = 0;
};

bool is_separator(char16_t c) noexcept {
    return c == u'\\' || c == u'/';
}

}  // namespace

std::optional<std::string_view> resolve_path(std::string_view from, const char16_t* name,
                                             std::span<char, max_path> to) noexcept {
    Path path(to);
    if (!is_separator(*name))
        for (const char c : from)
            if (!path.put(c))
                return std::nullopt;
    while (*name != 0) {
        if (is_separator(*name)) {
            ++name;
            continue;
        }
        const std::size_t before = path.size();
        if (!path.put('/'))
            return std::nullopt;
        while (*name != 0 && !is_separator(*name)) {
            std::uint32_t code = *name++;
            if (code >= 0xd800 && code < 0xdc00 && *name >= 0xdc00 && *name < 0xe000)
                code = 0x10000 + ((code - 0xd800) << 10) + (*name++ - 0xdc00U);
            if (!path.put_code(code))
                return std::nullopt;
        }
        const auto last = path.last_from(before + 1);
        const bool up = last == "..";
        if (last == "." || up)
            path.cut(before);
        if (up && !path.climb())
            return std::nullopt;
    }
    return path.finish();
}

std::size_t to_utf16(std::string_view from, std::span<char16_t> to) noexcept {
    std::size_t used = 0;
    const auto put = [&](std::uint32_t unit) {
        if (used + 1 < to.size())
            to[used++] = static_cast<char16_t>(unit);
    };
    for (std::size_t i = 0; i < from.size();) {
        const auto lead = static_cast<unsigned char>(from[i++]);
        const unsigned tail = lead < 0x80 ? 0 : lead < 0xc2 ? 9 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : lead < 0xf5 ? 3 : 9;
        std::uint32_t code = tail == 0 ? lead : lead & (0x3fU >> tail);
        bool good = tail != 9;
        for (unsigned t = 0; good && t < tail; ++t) {
            good = i < from.size() && (static_cast<unsigned char>(from[i]) & 0xc0) == 0x80;
            if (good)
                code = code << 6 | (static_cast<unsigned char>(from[i++]) & 0x3fU);
        }
        if (!good)
            code = 0xfffd;
        if (code >= 0x10000) {
            put(0xd800 + ((code - 0x10000) >> 10 & 0x3ff));
            put(0xdc00 + (code & 0x3ff));
        } else {
            put(code);
        }
    }
    return used;
}

// Howard Hinnant's days-to-civil arithmetic: years that start in March, eras of 400 years.
Date civil_from_days(std::uint64_t days) noexcept {
    constexpr std::uint64_t last_day = 2'932'896;  // 9999-12-31
    days = (days < last_day ? days : last_day) + 719468;
    const std::uint64_t era = days / 146097;
    const std::uint64_t day = days % 146097;
    const std::uint64_t year_of_era = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    const std::uint64_t day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const std::uint64_t month = (5 * day_of_year + 2) / 153;
    return {static_cast<std::uint16_t>(year_of_era + era * 400 + (month >= 10 ? 1 : 0)),
            static_cast<std::uint8_t>(month < 10 ? month + 3 : month - 9),
            static_cast<std::uint8_t>(day_of_year - (153 * month + 2) / 5 + 1)};
}

}  // namespace masu::firmware

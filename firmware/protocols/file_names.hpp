// Names of files between EFI's UTF-16 with '\' and the readers' UTF-8 with '/'; days and dates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace masu::firmware {

inline constexpr std::size_t max_path = 1024;

// `name` seen from the directory or file `from` ("" or "/a/b"), "." and ".." resolved, into `to`
// with a final zero; nothing when it does not fit, or climbs above the root.
[[nodiscard]] std::optional<std::string_view> resolve_path(std::string_view from,
                                                           const char16_t* name,
                                                           std::span<char, max_path> to) noexcept;

// As many UTF-16 units as fit with a zero to come; the number written. What is no UTF-8 becomes
// U+FFFD.
[[nodiscard]] std::size_t to_utf16(std::string_view from, std::span<char16_t> to) noexcept;

struct Date {
    std::uint16_t year;
    std::uint8_t month;
    std::uint8_t day;
};
// Of a number of days since 1970.
[[nodiscard]] Date civil_from_days(std::uint64_t days) noexcept;

}  // namespace masu::firmware

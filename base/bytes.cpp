// Sizes as people write them.
#include "base/bytes.hpp"

#include <array>
#include <charconv>
#include <cmath>

namespace masu {

Result<std::uint64_t> parse_size(std::string_view text) {
    double number = 0;
    const auto* end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, number, std::chars_format::fixed);
    if (error != std::errc{} || number < 0)
        return fail("'{}' is not a size; write a number with an optional K, M, G or T", text);
    std::string_view suffix(rest, static_cast<std::size_t>(end - rest));
    if (suffix.ends_with("iB")) {
        suffix.remove_suffix(2);
    } else if (suffix.size() == 2 && (suffix.ends_with('B') || suffix.ends_with('b'))) {
        suffix.remove_suffix(1);
    }
    constexpr std::string_view units = "KMGT";
    double factor = 1;
    if (suffix.size() == 1) {
        const char unit = suffix[0] >= 'a' ? static_cast<char>(suffix[0] - 'a' + 'A') : suffix[0];
        const auto power = units.find(unit);
        if (power == std::string_view::npos)
            return fail("'{}' is not a size; the suffix must be K, M, G or T", text);
        factor = std::pow(1024.0, static_cast<double>(power + 1));
    } else if (!suffix.empty()) {
        return fail("'{}' is not a size; the suffix must be K, M, G or T", text);
    }
    const double bytes = number * factor;
    if (bytes >= 9.2e18)
        return fail("'{}' is too large a size", text);
    return static_cast<std::uint64_t>(bytes);
}

std::string format_size(std::uint64_t bytes) {
    static constexpr std::array units{"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = static_cast<double>(bytes);
    std::size_t unit = 0;
    while (value >= 1024 && unit + 1 < units.size()) {
        value /= 1024;
        ++unit;
    }
    if (value == std::floor(value))
        return fmt::format("{:.0f} {}", value, units[unit]);
    return fmt::format("{:.1f} {}", value, units[unit]);
}

}  // namespace masu

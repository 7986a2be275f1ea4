// The panic line.
#include "vmm/panic_line.hpp"

#include <algorithm>
#include <string_view>

namespace masu {
namespace {

constexpr std::string_view marker = "Kernel panic - not syncing";

std::optional<std::string> extract(std::string_view line) {
    const auto start = line.find(marker);
    if (start == std::string_view::npos)
        return std::nullopt;
    std::string text(line.substr(start));
    std::erase_if(text, [](char c) { return c < ' ' || c > '~'; });
    return text;
}

}  // namespace

void PanicLine::feed(std::span<const std::byte> bytes) {
    if (found_)
        return;
    for (const auto byte : bytes) {
        const auto c = static_cast<char>(byte);
        if (c == '\n') {
            end_line();
            if (found_)
                return;
        } else {
            line_ += c;
        }
        if (line_.size() < max_line)
            continue;
        // An overlong line: what cannot be the start of the marker any more is forgotten.
        const auto start = line_.find(marker);
        if (start == 0)
            end_line();
        else
            line_.erase(0, start != std::string::npos ? start : line_.size() - marker.size());
        if (found_)
            return;
    }
}

void PanicLine::end_line() {
    found_ = extract(line_);
    line_.clear();
}

void PanicLine::reset() {
    line_.clear();
    found_.reset();
}

std::optional<std::string> PanicLine::found() const {
    return found_ ? found_ : extract(line_);
}

}  // namespace masu

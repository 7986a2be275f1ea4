// GRUB's environment block: 1024 bytes of NAME=value lines behind a signature, padded with '#'.
#pragma once

#include <string_view>

#include "firmware/boot/text.hpp"

namespace masu::firmware {

// Calls visit(name, value) for each variable. False when it is no environment block. A value's
// escapes (backslash before backslash, or before the end of a line) are left as they are: what
// distributions write has none.
template <class Visit>
bool walk_grubenv(std::string_view block, Visit visit) noexcept {
    constexpr std::string_view signature = "# GRUB Environment Block\n";
    if (!block.starts_with(signature))
        return false;
    block = part(block, signature.size());
    while (!block.empty()) {
        const auto line = take_until(block, '\n');
        const std::size_t equals = line.find('=');
        if (line.starts_with('#') || equals == std::string_view::npos)
            continue;
        visit(part(line, 0, equals), part(line, equals + 1));
    }
    return true;
}

}  // namespace masu::firmware

// Base64 (RFC 4648, 4).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace masu {

// With padding.
[[nodiscard]] std::string encode_base64(std::string_view bytes);
// Line ends are skipped, padding may be missing; nothing for any other stranger.
[[nodiscard]] std::optional<std::string> decode_base64(std::string_view text);

}  // namespace masu

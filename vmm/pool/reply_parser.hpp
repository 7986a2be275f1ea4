// Reads the HTTP replies of a worker, which may be in a guest's power: bounded, and nothing but
// what Masu's own control socket answers.
#pragma once

#include <optional>
#include <string>

#include "base/result.hpp"

namespace masu::pool {

struct Reply {
    unsigned status = 0;
    std::string body;
};

inline constexpr std::size_t max_reply_body = 1024 * 1024;

// Takes the first reply off `input`, once it is there as a whole.
[[nodiscard]] Result<std::optional<Reply>> take_reply(std::string& input);

}  // namespace masu::pool

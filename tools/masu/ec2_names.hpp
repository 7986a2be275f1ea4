// Ids and texts as EC2 has them.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"

namespace masu::cli {

// "sg-0" and 16 random hex digits, for the kind "sg".
[[nodiscard]] Result<std::string> new_ec2_id(std::string_view kind);

// InvalidParameterValue when a name or description is too long, or has characters that EC2's may
// not have. `what` names it in the error.
[[nodiscard]] Result<> check_ec2_text(std::string_view what, std::string_view text);

}  // namespace masu::cli

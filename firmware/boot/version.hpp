// Comparing versions as the UAPI Version Format Specification says.
#pragma once

#include <string_view>

namespace masu::firmware {

// Below 0: `a` is older; 0: neither; above 0: `a` is newer.
[[nodiscard]] int compare_versions(std::string_view a, std::string_view b) noexcept;

}  // namespace masu::firmware

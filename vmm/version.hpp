// The version of the monitor.
#pragma once

#include <string_view>

namespace masu {

[[nodiscard]] std::string_view version() noexcept;  // "1.2.3"

}  // namespace masu

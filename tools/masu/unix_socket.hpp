// Connects to Unix stream sockets.
#pragma once

#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace masu::cli {

// Close-on-exec, blocking.
[[nodiscard]] Result<Fd> connect_unix(const std::string& path);

}  // namespace masu::cli

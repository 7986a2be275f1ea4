// Unix stream sockets at paths.
#pragma once

#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace masu::cli {

// Close-on-exec, blocking.
[[nodiscard]] Result<Fd> connect_unix(const std::string& path);
// For one caller at a time, of this user.
[[nodiscard]] Result<Fd> listen_unix(const std::string& path);

}  // namespace masu::cli

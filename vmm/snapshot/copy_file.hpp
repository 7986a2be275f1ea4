// Copying a file as cheaply as the file system allows.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace masu::snapshot {

// `to` must not exist; it gets mode 0600 and is synced. A reflink where the file system has them;
// else the data is copied inside the kernel, and holes stay holes. The bytes copied; 0 for a
// reflink.
[[nodiscard]] Result<std::uint64_t> copy_file(const std::string& from, const std::string& to);

}  // namespace masu::snapshot

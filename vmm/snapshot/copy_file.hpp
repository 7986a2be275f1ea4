// Copying a file as cheaply as the file system allows.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace masu::snapshot {

// Makes the empty file `to` the same as `from`: as copy_file() does, but not synced.
[[nodiscard]] Result<std::uint64_t> copy_content(int from, int to, const std::string& to_path);

// `to` must not exist; it gets mode 0600 and is synced, unless that is put off. A reflink where the
// file system has them; else the data is copied inside the kernel, and holes stay holes. The bytes
// copied; 0 for a reflink.
enum class Sync { Now, Later };
[[nodiscard]] Result<std::uint64_t> copy_file(const std::string& from, const std::string& to,
                                              Sync sync = Sync::Now);

}  // namespace masu::snapshot

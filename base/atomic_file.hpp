// Files that are replaced whole or not at all.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"

namespace masu {

// Writes `content` to a temporary name beside `path`, syncs it, renames it over `path` and syncs
// the folder: a crash at any point leaves the old file or the new one. Mode 0600.
[[nodiscard]] Result<> write_file_atomically(const std::string& path, std::string_view content);

// The folder that a file is in: "." for a bare name.
[[nodiscard]] std::string folder_of(const std::string& path);

// Syncs a folder: what was renamed into it, or unlinked, stays so after a crash.
[[nodiscard]] Result<> sync_folder(const std::string& path);

// The whole file; refused above `limit` bytes, so that a wrong path cannot exhaust memory.
[[nodiscard]] Result<std::string> read_file(const std::string& path, std::size_t limit);

}  // namespace masu

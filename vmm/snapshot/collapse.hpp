// A snapshot that only has pages of its own, made whole.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/result.hpp"

namespace masu::snapshot {

// Gives `directory` a whole memory file: that of the first of `below`, a whole snapshot, copied (by
// reflink, where the file system has that), then the own pages of the others and of the directory
// itself over it, each of which must belong on the one before. The file appears at once or not at
// all; the directory's own pages go last, and the manifest is the caller's. Says how many of how
// many bytes of own pages are merged. The bytes that are no holes.
[[nodiscard]] Result<std::uint64_t> collapse(
    const std::string& directory, std::span<const std::string> below,
    const std::function<void(std::uint64_t done, std::uint64_t total)>& progress);

}  // namespace masu::snapshot

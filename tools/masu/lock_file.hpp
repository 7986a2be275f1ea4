// A file whose flock() keeps commands that change the same thing apart.
#pragma once

#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace masu::cli {

// Opens the file, makes it where there is none, and locks it: LOCK_EX, or LOCK_SH. Waits for those
// who hold it; signals do not end the wait. The lock goes with the descriptor.
[[nodiscard]] Result<Fd> lock_file(const std::string& path, int operation);

}  // namespace masu::cli

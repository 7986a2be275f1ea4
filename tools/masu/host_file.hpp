// First checks of the files a person names, so that a wrong path is told before a VM is made.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"

namespace masu::cli {

enum class FileKind { File, FileOrBlockDevice };

// Absolute and tidy, without following links; the file need not exist.
[[nodiscard]] std::string absolute_path(const std::string& path);

// Refuses what is missing, a folder, empty or unreadable. `what` opens the sentence: "kernel",
// "initrd", "disk".
[[nodiscard]] Result<> check_host_file(std::string_view what, const std::string& path,
                                       FileKind kind);

}  // namespace masu::cli

// Shell completion, made from the program's own commands and options.
#pragma once

#include <string>

#include "base/result.hpp"

namespace CLI {
class App;
}

namespace masu::cli {

enum class Shell { Bash, Zsh, Fish };

// The script to source; it asks `masu ps -a --names` for the names of VMs.
[[nodiscard]] std::string completion_script(const CLI::App& program, Shell shell);

}  // namespace masu::cli

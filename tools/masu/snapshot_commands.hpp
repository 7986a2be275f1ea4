// The parts of `masu snapshot` that lie in files of their own.
#pragma once

#include "tools/masu/commands.hpp"

namespace masu::cli {

void add_restore(CLI::App& group, Invocation& invocation);
void add_clone(CLI::App& group, Invocation& invocation);
void add_collapse(CLI::App& group, Invocation& invocation);

}  // namespace masu::cli

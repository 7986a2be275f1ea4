// What the commands parse their arguments with, and what most files of tools/masu/ read and write,
// for -Db_pch=true (see base/precompiled/standard.hpp).
#include <CLI/CLI.hpp>

#include "base/precompiled/with_json.hpp"

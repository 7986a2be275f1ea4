// What the commands parse their arguments with, and what most files of tools/masu/ read and write,
// for -Db_pch=true (see base/precompiled/standard.hpp).
#include <CLI/App.hpp>  // CLI.hpp has what prints help as well, and every file would compile it

#include "base/precompiled/with_json.hpp"

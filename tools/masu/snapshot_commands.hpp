// The parts of `masu snapshot` that lie in files of their own.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "tools/masu/commands.hpp"
#include "tools/masu/snapshot_store.hpp"

namespace masu::cli {

void add_restore(CLI::App& group, Invocation& invocation);
void add_clone(CLI::App& group, Invocation& invocation);
void add_collapse(CLI::App& group, Invocation& invocation);
void add_compress(CLI::App& group, Invocation& invocation);  // and decompress

// VMs that live on a snapshot: its memory file is theirs until they have ended.
[[nodiscard]] Result<std::vector<std::string>> users_of(const std::string& name);

// Puts a compressed memory file in place of a snapshot's plain one. Held exclusively by the caller.
[[nodiscard]] Result<> compress(const SnapshotStore& snapshots, const Snapshot& snapshot);

}  // namespace masu::cli

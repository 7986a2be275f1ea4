// Puts a machine's state, memory and disks on disk, whole or not at all.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.hpp"
#include "vmm/config.hpp"
#include "vmm/kvm/guest_ram.hpp"
#include "vmm/snapshot/machine_state.hpp"

namespace masu::snapshot {

// The names in a snapshot's directory.
inline constexpr const char* state_name = "state";
inline constexpr const char* memory_name = "memory";
inline constexpr const char* manifest_name = "manifest.json";

struct SaveResult {
    std::uint64_t memory_stored = 0;  // bytes of the memory file that are no holes
};

// Two files, each replaced atomically, the state last. Disks are the caller's affair.
[[nodiscard]] Result<SaveResult> save_files(const MachineState& state, const kvm::GuestRam& ram,
                                            const std::string& state_path,
                                            const std::string& memory_path);

// A directory with both, a manifest, and for each drive that can change a copy of what makes it up:
// its overlay, or, without one, its file; by reflink where the file system has that, else without
// the holes. Read-only drives and overlays' bases are referred to by path. `metadata` goes into the
// manifest. Made under a temporary name beside `path` (path + ".partial-XXXXXX"), synced, renamed;
// `path` must not exist. After an error nothing is left of it; after a crash perhaps the temporary
// name.
[[nodiscard]] Result<SaveResult> save_directory(const MachineState& state, const kvm::GuestRam& ram,
                                                const VmConfig& config, const std::string& path,
                                                const std::string& metadata = {});

}  // namespace masu::snapshot

// Which files a machine that is loaded from a snapshot opens, so that its monitor can be confined
// to them before it loads anything.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "vmm/jail/landlock.hpp"
#include "vmm/vmm_action.hpp"

namespace masu::snapshot {

// The snapshot's own files, the disks and overlays as `load` has them, what a reboot of the guest
// reads, and where its vsock's socket is made. `config` is ReadState::settings of the snapshot.
// What is reached through /proc, as an inherited descriptor is, needs no rule and gets none.
[[nodiscard]] Result<jail::FileRules> loaded_files(std::vector<VmmAction> config,
                                                   const action::LoadSnapshot& load);

}  // namespace masu::snapshot

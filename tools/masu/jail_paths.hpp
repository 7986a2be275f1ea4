// Which files a VM's monitor may use.
#pragma once

#include "tools/masu/state.hpp"
#include "vmm/jail/landlock.hpp"

namespace masu::cli {

// What the VM is made of: its folder and that of its sockets, kernel and initrd, disks and
// overlays, the snapshot it comes from, and what the user added (--jail-read, --jail-write). The
// folder of a disk's overlay that is not there yet, since it is made there.
[[nodiscard]] jail::FileRules jail_paths(const VmRecord& record, const VmFolder& folder);

}  // namespace masu::cli

// Tells this boot of this host, and this load of its KVM, from any other.
#pragma once

#include <string>

#include "vmm/kvm/kvm.hpp"

namespace masu::kvm {

// The kernel's boot ID (/proc/sys/kernel/random/boot_id), without its newline; empty where it
// cannot be read. The first call in a process reads it: a jailed monitor makes that one before its
// jail. Any thread.
[[nodiscard]] const std::string& boot_id();

// What a CPU can do, and what KVM offers of it, stays the same for as long as this does: the boot
// ID, and the device file's number and time of change, which are others after the module was loaded
// anew. Empty where it cannot be told.
[[nodiscard]] std::string host_identity(const Kvm& kvm);

}  // namespace masu::kvm

// What a monitor in its jail refuses, since nobody has seen it work in there yet.
#pragma once

#include "base/result.hpp"
#include "vmm/config.hpp"
#include "vmm/vmm_action.hpp"

namespace masu {

// A TAP by name has to be there already. Descriptors that were handed over are as good as ever.
[[nodiscard]] Result<> check_jailed(const NetworkInterfaceConfig& interface);
[[nodiscard]] Result<> check_jailed(const VsockConfig& vsock);
// Memory that a page fault handler brings in (userfaultfd).
[[nodiscard]] Result<> check_jailed(const action::LoadSnapshot& action);

}  // namespace masu

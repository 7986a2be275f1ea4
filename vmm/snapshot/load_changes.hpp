// The configuration of a snapshot, changed as whoever loads it asks.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "vmm/vmm_action.hpp"

namespace masu::snapshot {

// Changes the settings before any of them is carried out. Returns the interfaces whose guest has
// another address from now on.
[[nodiscard]] Result<std::vector<std::string>> change_config(std::vector<VmmAction>& config,
                                                             const action::LoadSnapshot& load);

// Gives a drive the paths that `load` has for it. Returns whether it has any.
bool change_drive(DriveConfig& drive, const action::LoadSnapshot& load);

}  // namespace masu::snapshot

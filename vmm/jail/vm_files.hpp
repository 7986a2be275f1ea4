// Landlock's rules for the files that a VM is made of.
#pragma once

#include <optional>
#include <string>

#include "vmm/jail/landlock.hpp"

namespace masu::jail {

// Kernel and initrd, for the guest's reboots too; an empty path is none. A restored machine runs
// without them, should they be gone: what is not there gets no rule.
void add_boot_files(FileRules& rules, const std::string& kernel,
                    const std::optional<std::string>& initrd);

// A disk, and the overlay that lies over it: the folder of one that is yet to be made.
void add_disk(FileRules& rules, const std::string& path, bool read_only,
              const std::optional<std::string>& overlay);

}  // namespace masu::jail

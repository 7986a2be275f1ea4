// The kernel command line of `masu run`.
#pragma once

#include <string>

namespace masu::cli {

// Masu's defaults, then `append`, so that what a person writes wins. With a disk, and no root= in
// `append`, root=/dev/vda (rw, or ro when the first disk is read-only) is added: the whole first
// disk. Masu never looks into a disk, so a root file system in a partition needs root=.
[[nodiscard]] std::string make_boot_args(const std::string& append, bool has_disk,
                                         bool first_disk_read_only);

}  // namespace masu::cli

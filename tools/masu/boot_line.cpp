// Puts the kernel command line together.
#include "tools/masu/boot_line.hpp"

#include <sstream>

#include "vmm/config.hpp"

namespace masu::cli {

std::string make_boot_args(const std::string& append, bool has_disk, bool first_disk_read_only) {
    bool names_root = false;
    bool names_mode = false;
    std::istringstream words(append);
    for (std::string word; words >> word && word != "--";) {
        names_root = names_root || word.starts_with("root=");
        names_mode = names_mode || word == "ro" || word == "rw";
    }
    std::string line = default_boot_args;
    if (has_disk && !names_root) {
        line += " root=/dev/vda";
        if (!names_mode)
            line += first_disk_read_only ? " ro" : " rw";
    }
    return append.empty() ? line : line + " " + append;
}

}  // namespace masu::cli

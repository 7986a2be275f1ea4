#include "vmm/jail/vm_files.hpp"

#include <unistd.h>

#include "base/atomic_file.hpp"

namespace masu::jail {
namespace {

bool is_there(const std::string& path) {
    return ::access(path.c_str(), F_OK) == 0;
}

}  // namespace

void add_boot_files(FileRules& rules, const std::string& kernel,
                    const std::optional<std::string>& initrd) {
    for (const auto& path : {kernel, initrd.value_or("")})
        if (!path.empty() && is_there(path))
            rules.read.push_back(path);
}

void add_disk(FileRules& rules, const std::string& path, bool read_only,
              const std::optional<std::string>& overlay) {
    (read_only || overlay ? rules.read : rules.write).push_back(path);
    if (overlay)
        rules.write.push_back(is_there(*overlay) ? *overlay : folder_of(*overlay));
}

}  // namespace masu::jail

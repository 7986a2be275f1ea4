// By the VM's record.
#include "tools/masu/jail_paths.hpp"

#include <unistd.h>

#include "base/atomic_file.hpp"

namespace masu::cli {

jail::FileRules jail_paths(const VmRecord& record, const VmFolder& folder) {
    jail::FileRules rules{.read = record.jail_read, .write = record.jail_write};
    const auto own = folder.file("");
    rules.write.push_back(own);
    rules.write.push_back(record.socket_folder);
    // For reboots too. A restored VM runs without them, should they be gone.
    for (const auto& path : {record.kernel, record.initrd.value_or("")})
        if (!path.empty() && ::access(path.c_str(), F_OK) == 0)
            rules.read.push_back(path);
    for (const auto& disk : record.disks) {
        const bool base = disk.read_only || disk.overlay;
        (base ? rules.read : rules.write).push_back(disk.path);
        if (!disk.overlay || disk.overlay->starts_with(own))
            continue;
        const bool there = ::access(disk.overlay->c_str(), F_OK) == 0;
        rules.write.push_back(there ? *disk.overlay : folder_of(*disk.overlay));
    }
    if (record.vsock && folder_of(record.vsock->path) != record.socket_folder + "/")
        rules.sockets.push_back(record.vsock->path);
    return rules;
}

}  // namespace masu::cli

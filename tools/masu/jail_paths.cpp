// By the VM's record.
#include "tools/masu/jail_paths.hpp"

#include "base/atomic_file.hpp"
#include "vmm/jail/vm_files.hpp"

namespace masu::cli {

jail::FileRules jail_paths(const VmRecord& record, const VmFolder& folder) {
    jail::FileRules rules{.read = record.jail_read, .write = record.jail_write};
    const auto own = folder.file("");
    rules.write.push_back(own);
    rules.write.push_back(record.socket_folder);
    jail::add_boot_files(rules, record.kernel, record.initrd);
    for (const auto& disk : record.disks) {
        // An overlay in the VM's own folder has a rule already.
        const bool own_overlay = disk.overlay && disk.overlay->starts_with(own);
        jail::add_disk(rules, disk.path, disk.read_only || own_overlay,
                       own_overlay ? std::nullopt : disk.overlay);
    }
    if (record.vsock && folder_of(record.vsock->path) != record.socket_folder + "/")
        rules.sockets.push_back(record.vsock->path);
    return rules;
}

}  // namespace masu::cli

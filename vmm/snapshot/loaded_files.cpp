#include "vmm/snapshot/loaded_files.hpp"

#include "base/atomic_file.hpp"
#include "vmm/jail/vm_files.hpp"
#include "vmm/snapshot/load_changes.hpp"
#include "vmm/snapshot/own_drives.hpp"
#include "vmm/snapshot/save.hpp"

namespace masu::snapshot {
namespace {

void add_snapshot(const action::LoadSnapshot& load, jail::FileRules& rules) {
    if (!load.directory.empty())
        (load.record_working_set_ms ? rules.write : rules.read).push_back(load.directory);
    else
        rules.read.push_back(load.state_path);
    const bool maps_file = load.memory_handler.empty() && !load.memory_path.starts_with("/proc/");
    const bool elsewhere =
        load.directory.empty() || folder_of(load.memory_path) != load.directory + "/";
    if (maps_file && elsewhere)
        rules.read.push_back(load.memory_path);
}

// A drive that gets an overlay of its own in a folder lies over what the snapshot says.
void add_own_drive(const DriveConfig& drive, const action::LoadSnapshot& load,
                   jail::FileRules& rules) {
    rules.write.push_back(*load.overlay_folder);
    if (saved_as_overlay(load.directory, drive))
        rules.read.push_back(drive.path_on_host);
}

}  // namespace

Result<jail::FileRules> loaded_files(std::vector<VmmAction> config,
                                     const action::LoadSnapshot& load) {
    std::ignore = TRY(change_config(config, load));
    jail::FileRules rules;
    add_snapshot(load, rules);
    for (const auto& setting : config) {
        if (const auto* boot = std::get_if<action::SetBootSource>(&setting))
            jail::add_boot_files(rules, boot->source.kernel_image_path, boot->source.initrd_path);
        else if (const auto* vsock = std::get_if<action::SetVsock>(&setting))
            rules.sockets.push_back(vsock->vsock.uds_path);
        const auto* set = std::get_if<action::SetDrive>(&setting);
        if (set == nullptr)
            continue;
        auto drive = set->drive;
        const bool given = change_drive(drive, load);
        if (load.overlay_folder && !drive.is_read_only && !given)
            add_own_drive(drive, load, rules);
        else
            jail::add_disk(rules, drive.path_on_host, drive.is_read_only, drive.overlay_path);
    }
    return rules;
}

}  // namespace masu::snapshot

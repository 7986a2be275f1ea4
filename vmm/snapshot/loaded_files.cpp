#include "vmm/snapshot/loaded_files.hpp"

#include <unistd.h>

#include "base/atomic_file.hpp"
#include "vmm/api/config_file.hpp"
#include "vmm/snapshot/load_changes.hpp"
#include "vmm/snapshot/machine_state.hpp"
#include "vmm/snapshot/own_drives.hpp"
#include "vmm/snapshot/save.hpp"

namespace masu::snapshot {
namespace {

bool is_there(const std::string& path) {
    return ::access(path.c_str(), F_OK) == 0;
}

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

// A restored machine runs without them, should they be gone.
void add_boot_source(const BootSource& source, jail::FileRules& rules) {
    for (const auto& path : {source.kernel_image_path, source.initrd_path.value_or("")})
        if (!path.empty() && is_there(path))
            rules.read.push_back(path);
}

void add_drive(const DriveConfig& drive, jail::FileRules& rules) {
    const bool base = drive.is_read_only || drive.overlay_path;
    (base ? rules.read : rules.write).push_back(drive.path_on_host);
    if (drive.overlay_path)
        rules.write.push_back(is_there(*drive.overlay_path) ? *drive.overlay_path
                                                            : folder_of(*drive.overlay_path));
}

// A drive that gets an overlay of its own in a folder lies over what the snapshot says.
void add_own_drive(const DriveConfig& drive, const action::LoadSnapshot& load,
                   jail::FileRules& rules) {
    rules.write.push_back(*load.overlay_folder);
    if (saved_as_overlay(load.directory, drive))
        rules.read.push_back(drive.path_on_host);
}

}  // namespace

Result<std::vector<VmmAction>> saved_config(const std::string& state_path) {
    const auto state = TRY(load_state(state_path));
    return api::parse_config(state.config, "of the snapshot");
}

Result<jail::FileRules> loaded_files(std::vector<VmmAction> config,
                                     const action::LoadSnapshot& load) {
    std::ignore = TRY(change_config(config, load));
    jail::FileRules rules;
    add_snapshot(load, rules);
    for (const auto& setting : config) {
        if (const auto* boot = std::get_if<action::SetBootSource>(&setting))
            add_boot_source(boot->source, rules);
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
            add_drive(drive, rules);
    }
    return rules;
}

}  // namespace masu::snapshot

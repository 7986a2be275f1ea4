#include "vmm/snapshot/own_drives.hpp"

#include <unistd.h>

#include <algorithm>
#include <tuple>

#include "vmm/snapshot/copy_file.hpp"

namespace masu::snapshot {
namespace {

// Less what it is.
std::string saved_drive(const std::string& directory, const DriveConfig& drive) {
    return fmt::format("{}/disk-{}.", directory, drive.drive_id);
}

}  // namespace

MadeFiles::~MadeFiles() {
    for (const auto& path : paths_)
        ::unlink(path.c_str());
}

bool saved_as_overlay(const std::string& directory, const DriveConfig& drive) {
    return ::access((saved_drive(directory, drive) + "overlay").c_str(), F_OK) == 0;
}

Result<> own_drives(std::vector<DriveConfig>& drives, const std::string& directory,
                    const std::string& folder, const std::vector<std::string>& except,
                    MadeFiles& made) {
    for (auto& drive : drives) {
        if (drive.is_read_only || std::ranges::find(except, drive.drive_id) != except.end())
            continue;
        const auto saved = saved_drive(directory, drive);
        const auto overlay = fmt::format("{}/{}.overlay", folder, drive.drive_id);
        if (::access(overlay.c_str(), F_OK) == 0)
            return fail("{} is there already; each VM needs a folder of its own", overlay);
        made.expect(overlay);
        if (saved_as_overlay(directory, drive)) {
            std::ignore = TRY(copy_file(saved + "overlay", overlay, Sync::Later));
        } else if (::access((saved + "raw").c_str(), F_OK) == 0) {
            drive.path_on_host = saved + "raw";
        } else {
            return fail("the snapshot {} holds no copy of drive {}", directory, drive.drive_id);
        }
        drive.overlay_path = overlay;
        drive.overlay_dies_with_vm = true;
    }
    return {};
}

void expect_overlays(const std::vector<DriveConfig>& drives, MadeFiles& made) {
    for (const auto& drive : drives)
        if (drive.overlay_path && !drive.overlay_dies_with_vm &&
            ::access(drive.overlay_path->c_str(), F_OK) < 0)
            made.expect(*drive.overlay_path);
}

}  // namespace masu::snapshot

// Gives a restored machine disks of its own.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "vmm/config.hpp"

namespace masu::snapshot {

// Files that go again unless they are kept: those of a machine that comes to nothing.
class MadeFiles {
  public:
    MadeFiles() = default;
    MadeFiles(MadeFiles&&) = default;
    MadeFiles& operator=(MadeFiles&&) = delete;
    ~MadeFiles();
    // A file that will be made, or may be; none is there now.
    void expect(std::string path) { paths_.push_back(std::move(path)); }
    void keep() noexcept { paths_.clear(); }

  private:
    std::vector<std::string> paths_;
};

// Each drive that can change, but for those named in `except`, gets an overlay of its own in
// `folder`, named by its id: a copy of the one in the snapshot's directory, or a new one over the
// disk that was copied there whole. No such file may be in `folder` yet. They are not synced: they
// belong to one VM for as long as it lives.
[[nodiscard]] Result<> own_drives(std::vector<DriveConfig>& drives, const std::string& directory,
                                  const std::string& folder, const std::vector<std::string>& except,
                                  MadeFiles& made);

// The other drives' overlays that are not there: opening the drive makes them.
void expect_overlays(const std::vector<DriveConfig>& drives, MadeFiles& made);

// Whether the snapshot in `directory` holds what this drive wrote over the file it lies over, and
// not the disk as a whole.
[[nodiscard]] bool saved_as_overlay(const std::string& directory, const DriveConfig& drive);

}  // namespace masu::snapshot

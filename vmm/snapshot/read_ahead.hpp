// A snapshot's state file, read and checked before the load that needs it.
#pragma once

#include <sys/types.h>

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "vmm/snapshot/machine_state.hpp"
#include "vmm/vmm_action.hpp"

namespace masu::snapshot {

// Tells a file from one that was put in its place or changed since.
struct FileStamp {
    dev_t device = 0;
    ino_t inode = 0;
    std::int64_t size = 0;
    std::int64_t modified = 0;  // nanoseconds since 1970
    std::int64_t changed = 0;   // likewise, also of its attributes
    bool operator==(const FileStamp&) const = default;
};
// Absent where there is no file.
[[nodiscard]] std::optional<FileStamp> stamp_of(const std::string& path);

struct ReadState {
    std::optional<FileStamp> stamp;  // of before it was read
    MachineState state;
    SnapshotId id;
    std::vector<VmmAction> settings;  // what state.config says
};

// load_state(), and its configuration as a config file is read.
[[nodiscard]] Result<ReadState> read_state(const std::string& path);

}  // namespace masu::snapshot

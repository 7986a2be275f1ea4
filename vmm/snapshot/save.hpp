// Puts a machine's state, memory and disks on disk, whole or not at all.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "vmm/config.hpp"
#include "vmm/kvm/guest_ram.hpp"
#include "vmm/page_set.hpp"
#include "vmm/snapshot/machine_state.hpp"
#include "vmm/snapshot/page_list.hpp"
#include "vmm/snapshot/save_progress.hpp"

namespace masu::snapshot {

// The names in a snapshot's directory.
inline constexpr const char* state_name = "state";
inline constexpr const char* memory_name = "memory";
inline constexpr const char* compressed_memory_name = "memory.zst";  // in place of `memory`
inline constexpr const char* manifest_name = "manifest.json";
inline constexpr const char* own_memory_name = "memory.own";  // of MemoryForm::OwnPages
inline constexpr const char* own_pages_name = "own-pages";    // which those are
inline constexpr const char* working_set_name = "working-set";

struct MemoryPlan {
    MemoryForm form = MemoryForm::Whole;
    int base = -1;                     // OnBase: its memory file, open
    const PageSet* pages = nullptr;    // not Whole: those that differ from the base or the parent
    std::optional<SnapshotId> parent;  // not Whole, for people; OwnPages: the one it belongs on
    std::string parent_path;
};

struct SaveResult {
    std::uint64_t memory_stored = 0;   // bytes of the memory file that are no holes
    std::uint64_t memory_written = 0;  // of these, written out and not copied from a base
    SnapshotId id{};
    Fd memory;  // the file, open; of MemoryForm::OwnPages its own pages
};

// Two files, each replaced atomically, the state last. Disks are the caller's affair. With `only`
// the memory file holds those pages, and holes for the others.
[[nodiscard]] Result<SaveResult> save_files(const MachineState& state, const kvm::GuestRam& ram,
                                            const std::string& state_path,
                                            const std::string& memory_path,
                                            const PageSet* only = nullptr);

// How a drive is part of a snapshot.
struct SavedDrive {
    DriveConfig config;
    std::string kind;  // "reference", "overlay" or "raw"
    std::string file;  // in the directory; empty for a reference
    std::uint64_t copied = 0;
};

class TemporaryPath;

// save_directory() in steps, for those who let the guest run in between. begin(); then, in any
// order, memory and drives; then commit(). Dropped before commit() nothing is left. Any thread, one
// at a time.
class DirectorySave {
  public:
    // Makes the directory's temporary name and in it the memory file: empty, or a copy of the base.
    [[nodiscard]] static Result<DirectorySave> begin(const std::string& path,
                                                     const MemoryPlan& plan);
    DirectorySave(DirectorySave&&) noexcept;
    DirectorySave& operator=(DirectorySave&&) noexcept;
    ~DirectorySave();

    [[nodiscard]] int memory() const noexcept { return memory_.get(); }
    [[nodiscard]] const std::string& memory_path() const noexcept { return memory_path_; }
    // As they are now; not synced yet.
    [[nodiscard]] Result<> copy_drives(const VmConfig& config);
    // Syncs everything and gives the directory its name. `written`: bytes of memory written out.
    [[nodiscard]] Result<SaveResult> commit(const MachineState& state, const VmConfig& config,
                                            const MemoryPlan& plan, std::uint64_t written,
                                            const std::string& metadata);

  private:
    DirectorySave();
    std::string path_;
    std::unique_ptr<TemporaryPath> temporary_;
    std::string memory_path_;
    Fd memory_;
    std::vector<SavedDrive> drives_;
};

// A directory with both, a manifest, and for each drive that can change a copy of what makes it up:
// its overlay, or, without one, its file; by reflink where the file system has that, else without
// the holes. Read-only drives and overlays' bases are referred to by path. `metadata` goes into the
// manifest. Made under a temporary name beside `path` (path + ".partial-XXXXXX"), synced, renamed;
// `path` must not exist. After an error nothing is left of it; after a crash perhaps the temporary
// name.
[[nodiscard]] Result<SaveResult> save_directory(const MachineState& state, const kvm::GuestRam& ram,
                                                const VmConfig& config, const std::string& path,
                                                const std::string& metadata = {},
                                                const MemoryPlan& plan = {});

}  // namespace masu::snapshot

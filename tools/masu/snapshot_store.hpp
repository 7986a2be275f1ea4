// The folder of snapshots, and what a snapshot's manifest says.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "tools/masu/state.hpp"

namespace masu::cli {

// How a drive of the saved machine is part of its snapshot.
struct SnapshotDrive {
    std::string drive_id;
    std::string kind;  // "reference", "overlay" (a copy of it) or "raw" (a copy of the whole disk)
    std::string path;  // on the host when it was saved: of a reference, or the base of an overlay
    std::string file;  // in the snapshot's directory; empty for a reference
};

// In which form a whole snapshot's memory lies there.
enum class MemoryFile { Plain, Compressed };
[[nodiscard]] constexpr std::string_view to_string(MemoryFile form) {
    return form == MemoryFile::Plain ? "plain" : "compressed";
}

struct Snapshot {
    std::string name;
    std::string path;  // of the directory
    VmRecord vm;       // what the saved VM was asked to be
    std::vector<SnapshotDrive> drives;
    std::int64_t saved = 0;           // Unix time, seconds
    std::uint64_t memory_bytes = 0;   // the guest's
    std::uint64_t memory_stored = 0;  // in the file
    // What was written out; the rest was copied or, by reflink, is shared with the snapshot below.
    std::uint64_t memory_written = 0;
    std::string memory_form;  // "whole", "on-base" or "own-pages" (snapshot::MemoryForm)
    MemoryFile memory_file = MemoryFile::Plain;
    std::string id;         // snapshot::SnapshotId; empty of old ones
    std::string parent_id;  // of "own-pages": it is needed
    std::string parent_path;
    boost::json::object manifest;  // all of it

    // It has all of its memory, and can be restored.
    [[nodiscard]] bool whole() const { return memory_form != "own-pages"; }
    // Bytes on this host's disks that are the snapshot's own.
    [[nodiscard]] std::uint64_t stored_bytes() const;
};

// Snapshots lie in STATE/snapshots/NAME. A folder counts when its manifest can be read.
class SnapshotStore {
  public:
    explicit SnapshotStore(const Places& places) : path_(places.state + "/snapshots") {}

    // Where a snapshot of that name is to be made: checks the name, makes the folder above, and
    // clears away what killed commands left there.
    [[nodiscard]] Result<std::string> prepare(const std::string& name) const;
    // Takes in what a jailed monitor has saved to `path`. From another file system it is copied, and
    // nothing is left of it if that fails.
    [[nodiscard]] Result<> adopt(const std::string& path, const std::string& name) const;
    // Keeps others from deleting the snapshot, or, `exclusive`, from starting VMs of it: for as
    // long as the descriptor lives. Take it before find(); it waits for whoever has the other kind.
    [[nodiscard]] Result<Fd> hold(const std::string& name, bool exclusive = false) const;
    [[nodiscard]] Result<Snapshot> find(const std::string& name) const;
    [[nodiscard]] Result<std::vector<std::string>> names() const;  // sorted
    [[nodiscard]] Result<> remove(const std::string& name) const;

    // The snapshot below one of own pages, if it is still there.
    [[nodiscard]] Result<std::optional<Snapshot>> parent_of(const Snapshot& snapshot) const;
    // All it needs to become whole, the whole one first; empty for a whole one.
    [[nodiscard]] Result<std::vector<Snapshot>> chain_of(const Snapshot& snapshot) const;
    // Those of own pages right above it.
    [[nodiscard]] Result<std::vector<std::string>> children_of(const Snapshot& snapshot) const;
    // Those whose overlays lie over disks that were copied into this one, by the VMs restored from
    // it.
    [[nodiscard]] Result<std::vector<std::string>> overlaid_by(const Snapshot& snapshot) const;
    // Those of VMs that were made from this image.
    [[nodiscard]] Result<std::vector<std::string>> of_image(const std::string& image) const;
    // Of the memory file, what the file system shares with other files.
    [[nodiscard]] Result<std::uint64_t> shared_bytes(const Snapshot& snapshot) const;
    // It has a whole memory file of that form now, of `stored` bytes, and needs no other snapshot.
    [[nodiscard]] Result<> note_whole(const Snapshot& snapshot, std::uint64_t stored,
                                      MemoryFile form = MemoryFile::Plain) const;

    // Bytes already written of a snapshot that a monitor is saving to `path`, for progress.
    [[nodiscard]] static std::uint64_t bytes_so_far(const std::string& path);

  private:
    [[nodiscard]] std::string folder_of(const std::string& name) const {
        return path_ + "/" + name;
    }
    std::string path_;
};

[[nodiscard]] Result<SnapshotStore> open_snapshot_store();

}  // namespace masu::cli

// What a VM's memory has in common with snapshots on disk: what differential saves build on.
#pragma once

#include <optional>
#include <string>

#include "base/fd.hpp"
#include "vmm/page_set.hpp"
#include "vmm/snapshot/save.hpp"

namespace masu::snapshot {

// Plain value; the VM's monitor keeps it up to date. The two are the same snapshot but for those
// that only hold pages of their own, which can be a parent and not a base.
struct Lineage {
    // The memory file of a whole snapshot, kept open, and the pages written since it was made.
    Fd base;
    PageSet since_base;
    // The latest snapshot, and the pages written since.
    std::optional<SnapshotId> parent;
    std::string parent_path;  // of its directory or state file
    PageSet since_parent;

    // Of a VM with so many pages that is just as the snapshot says.
    void begin_at(Fd memory, const SnapshotId& id, std::string path, std::size_t pages) {
        *this = {.base = std::move(memory),
                 .since_base = PageSet(pages),
                 .parent = id,
                 .parent_path = std::move(path),
                 .since_parent = PageSet(pages)};
    }
    void add(const PageSet& written) {
        since_base.merge(written);
        since_parent.merge(written);
    }
};

}  // namespace masu::snapshot

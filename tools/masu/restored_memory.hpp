// How the memory of a compressed snapshot gets into the VMs that are started from it.
#pragma once

#include <string>

#include <boost/json/object.hpp>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "tools/masu/snapshot_store.hpp"

namespace masu::cli {

// One for all VMs that a command starts from one snapshot.
struct RestoredMemory {
    enum class Way {
        Mapped,    // the snapshot has a plain file
        Served,    // a page server for each VM
        Unpacked,  // `unpacked`, a memory file in this host's memory that all VMs share
    };
    Way way = Way::Mapped;
    Fd unpacked;
};

// Served, where this user may have page faults handled; else unpacks it, and says so.
[[nodiscard]] Result<RestoredMemory> choose_memory(const Snapshot& snapshot);

// Before the monitor is started: what it has to inherit, and what PUT /snapshot/load is told.
struct MemoryBackend {
    Fd inherited;               // or nothing
    boost::json::object field;  // mem_backend; empty for none
};
[[nodiscard]] Result<MemoryBackend> prepare_memory(const RestoredMemory& memory,
                                                   const Snapshot& snapshot, const VmRecord& record,
                                                   const VmFolder& folder, bool working_set);

}  // namespace masu::cli

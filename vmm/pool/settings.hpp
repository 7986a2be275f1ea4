// What a pool makes ahead, and how the texts of its VMs differ from one another.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "vmm/jail/jail.hpp"
#include "vmm/pool/request_channel.hpp"

namespace masu::pool {

// How much of a launch is done ahead of it.
enum class Level {
    Forked,  // the process; the snapshot is loaded at the launch
    Loaded,  // all but the state of vCPUs and clocks
};

inline constexpr unsigned max_pool_size = 1024;

struct PoolSettings {
    unsigned size = 8;  // workers to keep ready, 1 to max_pool_size
    Level level = Level::Loaded;
    unsigned most_vms = 4096;  // in all: ready, being made, running, ending
    // Made if it is not there; nobody else's while the pool lives. Each VM has a folder of its own
    // in it, named by its id, which goes with the VM.
    std::string folder;
    // The body of each VM's PUT /snapshot/load: see load_template().
    std::string load;
    // Asked of each VM's control socket between the load and the moment it counts as ready.
    std::vector<Request> setup;
    std::vector<std::string> monitor_arguments = {};  // more of masu-vmm's, for each
    // Of each monitor, which enters it before it loads. Its own folder and what `load` makes it
    // open need not be among the files.
    jail::Options jail = {};
    // Workers are made anew this long after a launch, so that the guests come first.
    Nanoseconds refill_delay = 10'000'000;
};

// What tells one VM of a pool from another.
struct VmNames {
    std::string id;           // "vm-1", "vm-2", ...: never used twice by a pool
    unsigned number = 0;      // from 1, the smallest that no other VM has: "{n}", as in TAP names
    std::string folder;       // of the VM
    std::string instance_id;  // "i-0" and 16 random digits
};

// A PUT /snapshot/load body for every VM, less resume_vm, out of one that a person wrote: where it
// names no identity or overlay_folder it gets those of each VM. An error says what is wrong with
// it.
[[nodiscard]] Result<std::string> load_template(std::string_view body);

// The body made of a template.
[[nodiscard]] std::string load_body(std::string_view load, bool resume);

// Puts the names in place of {id}, {n}, {folder} and {instance_id} in a JSON text or a path.
[[nodiscard]] std::string with_names(std::string_view text, const VmNames& names);

[[nodiscard]] Result<std::string> random_instance_id();

}  // namespace masu::pool

// The jail of the monitor: what a guest that takes the process over cannot do from there.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.hpp"
#include "base/result.hpp"
#include "vmm/jail/landlock.hpp"
#include "vmm/jail/seccomp.hpp"
#include "vmm/jail/thread_kind.hpp"

namespace masu::jail {

struct Options {
    FilterMode filters = FilterMode::Enforce;  // Off: no jail at all
    FileRules files = {};                      // none: see confine_files()
};

// The options of masu-vmm that ask for such a jail.
[[nodiscard]] std::vector<std::string> arguments(const Options& options);

// Of a monitor without a jail, for its log and standard error.
inline constexpr std::string_view no_jail_warning =
    "there is no jail (--no-jail): a guest that breaks out of its VM can do what this user can";

// What confines the process, a word or two each, for a person: "seccomp", "no-new-privileges", ...
using Walls = std::vector<std::string>;

// A jail that was entered; to be kept while the process lives.
struct Jail {
    Walls walls;
    FileView files;
};

// Confines the calling thread and all that it makes later; there is no way back. Called once, by
// the only thread there is, when what needs more has been done: descriptors of this process's own
// (log, console) are open. Fails closed: an error means that the monitor must not go on.
// Capabilities of set_up_capabilities() stay until give_up_set_up_capabilities().
[[nodiscard]] Result<Jail> enter(const Options& options);

// The first thing a thread of another kind does.
[[nodiscard]] Result<> enter_thread(ThreadKind kind, FilterMode mode);

}  // namespace masu::jail

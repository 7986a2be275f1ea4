// Starts monitors, and ends them without ever hitting another process.
#pragma once

#include <sys/types.h>

#include <optional>
#include <span>
#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "tools/masu/state.hpp"

namespace masu::cli {

// $MASU_VMM; else masu-vmm beside this program, in its build tree, in the libexec folder that
// belongs to it, or on PATH.
[[nodiscard]] Result<std::string> find_monitor();

// A monitor that runs: a descriptor for its process, which no recycled pid can be behind.
struct MonitorProcess {
    pid_t pid = 0;
    Fd pidfd;  // readable when the process has ended

    // Waits for the end; false when it did not come in time. -1: no limit.
    [[nodiscard]] bool wait(int timeout_ms) const;
    // SIGKILL.
    [[nodiscard]] Result<> kill() const;
};

// Starts the monitor of `folder` as a child in a session of its own, with `lock` as its sign of
// life, and waits until its API listens. It inherits `inherited` under the same numbers. The error
// is what the monitor said when it gave up.
[[nodiscard]] Result<MonitorProcess> start_monitor(const VmRecord& record, const VmFolder& folder,
                                                   const Fd& lock, const std::string& log_level,
                                                   std::span<const int> inherited);

// A sentence, when the monitor was a child of this process and its own jail has killed it.
[[nodiscard]] std::optional<std::string> killed_by_jail(const VmRecord& record,
                                                        const MonitorProcess& monitor);
// Ends a monitor whose VM could not be started, and returns why: `error`, unless the jail was at
// the bottom of it.
[[nodiscard]] std::unexpected<Error> give_up_start(const VmRecord& record,
                                                   const MonitorProcess& monitor, Error error);

// The running monitor of a VM; nothing when it is dead.
[[nodiscard]] Result<std::optional<MonitorProcess>> running_monitor(const VmFolder& folder,
                                                                    const VmRecord& record);

// Leaves a process behind that deletes the VM's folder once the monitor has ended and nobody
// watches any more. `id` guards against a new VM of the same name.
[[nodiscard]] Result<> leave_reaper(const Store& store, const VmFolder& folder,
                                    const std::string& id);

}  // namespace masu::cli

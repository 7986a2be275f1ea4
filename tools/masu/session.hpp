// What `masu run` and `masu console` do once a console is joined to this terminal.
#pragma once

#include "base/fd.hpp"
#include "base/result.hpp"
#include "tools/masu/monitor_process.hpp"
#include "tools/masu/state.hpp"

namespace masu::cli {

// Attaches until the VM ends or the person leaves. The value is the exit status: 0 when the guest
// switched itself off or the person left on purpose, 1 after any other end (told in one line), and
// 128 + n when signal n ended this command.
[[nodiscard]] Result<int> hold_console(const VmFolder& folder, const VmRecord& record,
                                       const MonitorProcess& monitor, const Fd& console);

// Ends a VM at once: the monitor's Stop action, and SIGKILL if it does not answer. Returns when the
// monitor has ended.
[[nodiscard]] Result<> stop_at_once(const VmRecord& record, const MonitorProcess& monitor);

// The end of a VM whose monitor is dead, for a person: "guest powered off", "killed", ...
struct End {
    bool clean = false;  // the guest switched itself off, or was told to stop
    std::string reason;
};
[[nodiscard]] End describe_end(const VmFolder& folder);

}  // namespace masu::cli

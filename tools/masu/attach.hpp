// Joins this terminal (or whatever stdin and stdout are) with a VM's console.
#pragma once

#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "tools/masu/monitor_process.hpp"

namespace masu::cli {

enum class AttachEnd {
    Stopped,   // the monitor has ended
    Quit,      // the person asked for the VM to be stopped: Ctrl-A X, or SIGINT without a terminal
    Detached,  // Ctrl-A D
    Interrupted,  // SIGTERM, SIGHUP or SIGQUIT reached this process
    OutputGone,   // nobody reads stdout any more
};

struct AttachResult {
    AttachEnd end = AttachEnd::Stopped;
    int signal = 0;  // for Interrupted, and for Quit by SIGINT
};

// Copies until one of the ends above. stdin that is a terminal is set to raw mode and watched for
// Ctrl-A; any other stdin is passed on byte by byte, and its end does not end anything. On stdout
// comes what the guest printed and nothing else. Call block_attach_signals() before the VM starts.
[[nodiscard]] Result<AttachResult> attach(const Fd& console, const MonitorProcess& monitor);

// From here on the signals that attach() handles wait for it.
void block_attach_signals();
void unblock_attach_signals();

}  // namespace masu::cli

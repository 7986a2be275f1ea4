// One run of masu-vmm --pool-sock: a pool, its control socket, and the process that forks for it.
#pragma once

#include "tools/masu-vmm/options.hpp"
#include "vmm/monitor.hpp"

namespace masu {

// SIGTERM, SIGINT and SIGHUP are blocked already; each ends the pool and its VMs. The reason of a
// failure has been written to standard error.
[[nodiscard]] ExitStatus run_pool(const Options& options);

}  // namespace masu

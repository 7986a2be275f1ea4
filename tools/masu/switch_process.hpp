// The process of a network: its switch between the monitors of its VMs, or the holder of its
// bridge.
#pragma once

#include <string>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "tools/masu/state.hpp"

namespace masu::cli {

// Runs until the last port has gone, nobody came for half a minute, or it is told to stop.
// `listener`: a listening SOCK_SEQPACKET socket (switch_client.hpp tells the protocol). When a VM
// has left, the members of all security groups hear of it.
[[nodiscard]] Result<> run_switch(const Store& store, const std::string& network, Fd listener);

}  // namespace masu::cli

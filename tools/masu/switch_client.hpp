// The process of a network, its switch or the holder of its bridge, as commands use it: started on
// first use, asked, and told to end.
#pragma once

#include <string>
#include <vector>

#include <boost/json/array.hpp>

#include "base/fd.hpp"
#include "base/passed_descriptors.hpp"
#include "base/result.hpp"
#include "tools/masu/network_store.hpp"

namespace masu::cli {

// Requests and answers, one packet each on a SOCK_SEQPACKET socket: a JSON object. A request is
//   {"action": "join", "vm", "vm_id", "mac", "address"[, "address6"], "queues"}, of a switch with
//   the port's descriptor,
//   {"action": "ports"} or {"action": "stop"}
// and its answer {"ports": [...]}, {} (to a join of a bridge with the TAP's descriptors) or
// {"error": TEXT}, with "in_use": true where an address is another port's.
namespace switch_protocol {
inline constexpr std::size_t request_limit = 4096;
inline constexpr std::size_t answer_limit = 1 << 20;
inline constexpr std::size_t max_descriptors = 32;  // as many as a VM may have CPUs
static_assert(max_descriptors <= max_passed_descriptors);
}  // namespace switch_protocol

// A port for the lease: the monitor's end of a stream, or of a bridge a TAP's queues, as many as
// asked for. Starts the process where none runs. The caller holds the network's lock, so that
// nobody else starts one at the same time.
[[nodiscard]] Result<std::vector<Fd>> join_switch(const NetworkStore& networks,
                                                  const NetworkRecord& network, const Lease& lease,
                                                  unsigned queues);

// What runs through each port; nothing where no switch runs.
[[nodiscard]] boost::json::array switch_ports(const NetworkStore& networks,
                                              const NetworkRecord& network);

// Ends the switch, if one runs, and deletes its socket.
void stop_switch(const NetworkStore& networks, const NetworkRecord& network);

}  // namespace masu::cli

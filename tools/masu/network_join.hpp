// Putting a VM on a network: an address of its own, and a port of the network's switch or bridge.
#pragma once

#include <cstddef>
#include <vector>

#include <boost/json/object.hpp>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "tools/masu/network_store.hpp"
#include "tools/masu/vm_record.hpp"

namespace masu::cli {

struct NetworkPort {
    bool is_tap = false;
    // For the monitor: its end of a stream with passt's framing, or the queues of a TAP.
    std::vector<Fd> descriptors;
};

// Joins the VM's interface `index`, of kind Network; the VM's folder is there and its lock is held,
// for the lease lasts as long as that. Fills in address, address6, mac (as the network knows it)
// and mtu of the interface; an address that is there already is the one wished for.
[[nodiscard]] Result<NetworkPort> join_network(const NetworkStore& networks, VmRecord& record,
                                               std::size_t index);

// Adds passt_fd or tap_fds to a request for the interface behind a port, which has descriptors.
void name_descriptors(const NetworkPort& port, boost::json::object& request);

}  // namespace masu::cli

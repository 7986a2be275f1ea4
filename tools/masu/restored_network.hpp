// The network of a VM that goes on from a snapshot: the interfaces it was saved with, each behind a
// backend of its own here.
#pragma once

#include <string>
#include <vector>

#include <boost/json/array.hpp>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "tools/masu/flow_log_options.hpp"
#include "tools/masu/network_join.hpp"
#include "tools/masu/security_groups.hpp"
#include "tools/masu/state.hpp"

namespace masu::cli {

struct RestoredNetworkOptions {
    std::vector<std::string> nets;             // --net: none, or one for each interface, in order
    std::vector<std::string> ports;            // -p
    std::vector<std::string> security_groups;  // --security-group; none: those it was saved with
    FlowLogOptions flow_logs;
};

// Which one of the VMs that a command starts: `number` counts from 1. A clone publishes only ports
// that are given here, and its own number stands in for "{n}" in --net.
struct RestoredAs {
    bool clone = false;
    unsigned number = 1;
};

// `text` with the clone's number in place of each "{n}".
[[nodiscard]] std::string with_number(std::string text, unsigned number);

// Changes nets, ports and security groups of the saved VM's record to those it has from now on.
[[nodiscard]] Result<> choose_restored_network(const RestoredNetworkOptions& options,
                                               const GroupBook& book, const RestoredAs& as,
                                               VmRecord& record);

// What to hand to the monitor, by interface; see start_networks(). On a network of Masu's a VM that
// is restored is given the address it was saved with, or refused; a clone has one of its own.
[[nodiscard]] Result<std::vector<NetworkPort>> start_restored_network(const Store& store,
                                                                      VmRecord& record,
                                                                      const VmFolder& folder);

// network_overrides of PUT /snapshot/load. `given`: the nets are --net's and not the saved ones.
[[nodiscard]] boost::json::array network_overrides(const VmRecord& record,
                                                   const std::vector<NetworkPort>& backends,
                                                   bool given, const std::string& hostname);

}  // namespace masu::cli

// From the options of `masu run` to the network of a VM: which interfaces, passt beside the
// monitor, and what the metadata service tells the guest.
#pragma once

#include <string>
#include <vector>

#include <boost/json/object.hpp>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "tools/masu/monitor_client.hpp"
#include "tools/masu/network_join.hpp"
#include "tools/masu/state.hpp"

namespace masu::cli {

struct NetworkOptions {
    std::vector<std::string> nets;      // --net
    std::vector<std::string> ports;     // -p
    std::string imds = "v2";            // --imds: v2, v1 or off
    std::string account_id;             // --account-id: 12 digits, or empty
    std::string user_data;              // --user-data: a file
    std::vector<std::string> ssh_keys;  // --ssh-key: files of public keys
};

// What the guest gets to know, read before anything is started.
struct GuestMetadata {
    bool on = false;
    bool tokens_required = true;
    std::string user_data;  // raw bytes; empty: none
    std::vector<std::string> keys;
};

// "net0" is the first.
[[nodiscard]] std::string interface_id(std::size_t index);
// What the guest is told of a network through passt.
[[nodiscard]] boost::json::object user_guest_network(const std::string& hostname);

// Fills in the record's nets and ports. Without --net: user where passt is installed, else none.
[[nodiscard]] Result<> choose_networks(const NetworkOptions& options, VmRecord& record);
[[nodiscard]] Result<GuestMetadata> read_guest_metadata(const NetworkOptions& options);

// Starts what the interfaces need beside the monitor: what to hand to it, by interface (nothing
// where it opens its backend itself). Where passt cannot work and nobody asked for it, the VM goes
// without a network, and is told so.
[[nodiscard]] Result<std::vector<NetworkPort>> start_networks(const NetworkOptions& options,
                                                              VmRecord& record,
                                                              const VmFolder& folder);

// PUTs interfaces and metadata.
[[nodiscard]] Result<> configure_networks(const MonitorClient& client, const VmRecord& record,
                                          const std::vector<NetworkPort>& backends,
                                          const GuestMetadata& metadata);

}  // namespace masu::cli

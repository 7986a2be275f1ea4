// The --vsock option, and where a VM's vsock is on the host.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <boost/json/object.hpp>

#include "base/result.hpp"

namespace masu::cli {

struct VsockOption {
    std::uint32_t cid = 3;
    std::string path;  // absolute; of the socket. Empty: in the VM's socket folder
    bool operator==(const VsockOption&) const = default;
};

// CID|auto[,uds=PATH]. A comma that belongs to the path is written twice. `auto` is 3, which does
// for every VM: the CID only has to be unique among the sockets of one path.
[[nodiscard]] Result<VsockOption> parse_vsock_option(std::string_view text);

// The body of PUT /vsock.
[[nodiscard]] boost::json::object vsock_request(const VsockOption& vsock);

// vm.json and back.
[[nodiscard]] boost::json::object to_json(const VsockOption& vsock);
[[nodiscard]] VsockOption vsock_from_json(const boost::json::object& object);  // throws

}  // namespace masu::cli

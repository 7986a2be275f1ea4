// The DHCPv4 server of one interface (RFC 2131, 2132, 3442): one lease, always the same.
#pragma once

#include <cstddef>
#include <span>

#include "devices/net/services/packet_writer.hpp"
#include "devices/net/services/service_config.hpp"

namespace masu::net {

inline constexpr std::uint16_t dhcp_server_port = 67;
inline constexpr std::uint16_t dhcp_client_port = 68;
// RFC 2131, 3: before the options.
inline constexpr std::uint32_t dhcp_magic_cookie = 0x63825363;

// The answer to one DHCP message (the UDP payload) of the guest as a whole frame in `out`; false
// when there is none to give: not a request, malformed, or for another server. `config.ipv4` is
// there.
[[nodiscard]] bool answer_dhcp(const ServiceConfig& config, std::span<const std::byte> message,
                               Bytes& out);

}  // namespace masu::net

// The DHCPv6 server of one interface (RFC 8415, 3646): one address, always the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/net/services/packet_writer.hpp"
#include "devices/net/services/service_config.hpp"

namespace masu::net {

inline constexpr std::uint16_t dhcpv6_server_port = 547;
inline constexpr std::uint16_t dhcpv6_client_port = 546;
// ff02::1:2, where every message of a client goes (RFC 8415, 7.1).
inline constexpr Address dhcpv6_servers = Address::v6(0xff02'0000'0000'0000, 0x1'0002);

// The answer to one message (the UDP payload) that the guest sent from its link-local address
// `from`, as a whole frame in `out`; false when there is none to give: malformed, for another
// server, or one that RFC 8415, 16 says to discard. `config.ipv6` is there.
[[nodiscard]] bool answer_dhcpv6(const ServiceConfig& config, const Address& from,
                                 std::span<const std::byte> message, Bytes& out);

}  // namespace masu::net

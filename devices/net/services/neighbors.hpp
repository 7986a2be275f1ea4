// Answers about the services' own addresses: ARP, neighbour and router discovery, ping.
#pragma once

#include <cstddef>
#include <span>

#include "devices/net/firewall/packet.hpp"
#include "devices/net/services/packet_writer.hpp"
#include "devices/net/services/service_config.hpp"

namespace masu::net {

// Each puts a whole frame into `out`, or returns false when there is nothing to answer. `packet` is
// what the frame was parsed into.
[[nodiscard]] bool answer_arp(const ServiceConfig& config, const Packet& packet, Bytes& out);
// Whether it is a neighbour solicitation that the services answer.
[[nodiscard]] bool asks_for_neighbor(const ServiceConfig& config, const Packet& packet) noexcept;
// Neighbour and router solicitations.
[[nodiscard]] bool answer_discovery(const ServiceConfig& config, const Packet& packet, Bytes& out);
// Echo requests, ICMP and ICMPv6.
[[nodiscard]] bool answer_echo(const ServiceConfig& config, const Packet& packet,
                               std::span<const std::byte> frame, Bytes& out);
// The advertisement of a local IPv6 gateway; to all nodes, or to one.
void write_router_advertisement(const ServiceConfig& config, const Address& to,
                                const MacAddress& to_mac, Bytes& out);

}  // namespace masu::net

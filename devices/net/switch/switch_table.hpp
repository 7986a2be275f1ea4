// Where a frame from one port of a switch may go: a function of the ports' leases and the frame.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>

#include "base/result.hpp"
#include "devices/net/firewall/address.hpp"
#include "devices/net/firewall/packet.hpp"

namespace masu::net {

// What a port may send from, and be sent to: its lease. Nothing is learned from frames.
struct PortAddresses {
    MacAddress mac{};
    Address ipv4;
    std::optional<Address> ipv6;
};

using PortId = std::uint32_t;

enum class SwitchDrop : std::uint8_t {
    None,
    Malformed,      // no whole ARP, IPv4 or IPv6 packet
    SourceMac,      // not the port's
    SourceAddress,  // not the port's
    NeighborSpoof,  // ARP or neighbour discovery about somebody else's address; a router's messages
    Multicast,      // not carried, but for ARP requests and neighbour solicitations
    NoSuchPort,     // nobody has the address, or the sender itself
    Slow,           // the receiver has no room for it
};
inline constexpr std::size_t switch_drop_count = 8;
// "malformed" "source_mac" ...
[[nodiscard]] std::string_view to_string(SwitchDrop drop) noexcept;

// One thread. A frame goes to one port or to none: an ARP request or a neighbour solicitation to
// the port that has the address asked for, everything else by its destination MAC. There are as
// many entries as ports; no frame adds one.
class SwitchTable {
  public:
    static constexpr std::size_t max_ports = 512;

    // Refused when another port has one of the addresses.
    [[nodiscard]] Result<> add(PortId port, const PortAddresses& addresses);
    void remove(PortId port) noexcept;
    [[nodiscard]] std::size_t size() const noexcept { return ports_.size(); }

    struct Route {
        SwitchDrop drop = SwitchDrop::None;
        PortId to = 0;  // where `drop` is None
    };
    // `bytes`: the whole frame, from `port`.
    [[nodiscard]] Route route(PortId port, std::span<const std::byte> bytes) const noexcept;

  private:
    struct AddressHash {
        std::size_t operator()(const Address& address) const noexcept {
            return std::hash<std::uint64_t>()(address.high * 0x9e37'79b9'7f4a'7c15U ^ address.low);
        }
    };
    struct Port {
        PortAddresses addresses;
        Address link_local;  // that of the MAC
        [[nodiscard]] bool has(const Address& address) const noexcept {
            return address == addresses.ipv4 || address == addresses.ipv6 || address == link_local;
        }
    };
    [[nodiscard]] Route holder_of(PortId asking, const Address& address) const noexcept;
    [[nodiscard]] Route route_arp(PortId port, const Port& own,
                                  const Packet& packet) const noexcept;
    [[nodiscard]] Route route_discovery(PortId port, const Port& own,
                                        const Packet& packet) const noexcept;
    [[nodiscard]] Route by_mac(PortId port, const MacAddress& mac) const noexcept;

    std::unordered_map<PortId, Port> ports_;
    std::unordered_map<std::uint64_t, PortId> by_mac_;
    std::unordered_map<Address, PortId, AddressHash> by_address_;
};

}  // namespace masu::net

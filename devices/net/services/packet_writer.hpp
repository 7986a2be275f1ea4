// Building the packets that the monitor's services send to the guest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "devices/net/firewall/address.hpp"
#include "devices/net/frame.hpp"

namespace masu::net {

using Bytes = std::vector<std::byte>;

// Appends fields in network byte order.
class PacketWriter {
  public:
    explicit PacketWriter(Bytes& out) : out_(out) {}

    PacketWriter& u8(unsigned value) {
        out_.push_back(static_cast<std::byte>(value));
        return *this;
    }
    PacketWriter& u16(std::uint32_t value) { return u8(value >> 8 & 0xff).u8(value & 0xff); }
    PacketWriter& u32(std::uint32_t value) { return u16(value >> 16).u16(value & 0xffff); }
    PacketWriter& bytes(std::span<const std::byte> bytes) {
        out_.insert(out_.end(), bytes.begin(), bytes.end());
        return *this;
    }
    PacketWriter& text(std::string_view text) { return bytes(std::as_bytes(std::span(text))); }
    PacketWriter& zeros(std::size_t count) {
        out_.resize(out_.size() + count);
        return *this;
    }
    PacketWriter& mac(const MacAddress& mac) { return bytes(std::as_bytes(std::span(mac))); }
    PacketWriter& address(const Address& address);  // 4 or 16 bytes
    [[nodiscard]] std::size_t size() const noexcept { return out_.size(); }

  private:
    Bytes& out_;
};

// Who a packet is from and to.
struct Route {
    MacAddress from_mac{};
    MacAddress to_mac{};
    Address from;
    Address to;  // of the same family
    std::uint8_t hop_limit = 64;
};

// A whole frame into `out` (what it held is gone): Ethernet, IP, and `transport`, whose checksum
// at `checksum_offset` is filled in over the pseudo header (ICMP has none, and is summed alone).
void write_packet(Bytes& out, const Route& route, std::uint8_t protocol,
                  std::span<const std::byte> transport, std::size_t checksum_offset);

// The same with a UDP header before `payload`.
void write_udp(Bytes& out, const Route& route, std::uint16_t from_port, std::uint16_t to_port,
               std::span<const std::byte> payload);

}  // namespace masu::net

// Two MAC addresses of one interface: the one its guest booted with and goes on using, and the one
// that the network knows it by.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "devices/net/backend.hpp"
#include "devices/net/firewall/address.hpp"
#include "devices/net/net_header.hpp"

namespace masu::net {

// A driver reads its MAC once. Of a guest that was copied, the two addresses therefore change
// places in every frame on its way between the guest's side and the network's, in either direction.
// The exchange is its own inverse, and one to one: a guest that keeps its MAC may share a link with
// the one it was copied from, which it then sees under the address that is left over.
//
// Exchanged are, behind up to two VLAN tags (802.1Q, 802.1ad) too:
//   - Ethernet's destination and source
//   - ARP's hardware addresses of sender and target (RFC 826)
//   - source and target link-layer address options of neighbour discovery (RFC 4861, 4.6.1)
//   - DHCP's client hardware address, and a client identifier made of it (RFC 2131; 2132, 9.14)
// with their checksums brought up to date (RFC 1624); one that is yet to be completed stays.
class MacTranslation {
  public:
    // Nothing further into a frame is looked at: more than the headers and messages above take.
    static constexpr std::size_t depth = 2048;

    constexpr MacTranslation(const MacAddress& guest, const MacAddress& network) noexcept
        : guest_(guest), network_(network) {}

    // `frame` begins with the Ethernet header, and is all of the frame or at least `depth` bytes of
    // it; `header` is the one before it. Any bytes will do: what is cut off or makes no sense
    // stays.
    void apply(const NetHeader& header, std::span<std::byte> frame) const noexcept;

  private:
    class Checksummed;

    bool exchange(std::byte* mac) const noexcept;
    void exchange_in_arp(std::span<std::byte> frame) const noexcept;
    void exchange_in_discovery(Checksummed& message) const noexcept;
    void exchange_in_dhcp(Checksummed& message) const noexcept;

    MacAddress guest_;
    MacAddress network_;
};

// A backend behind a translation. What the device judges, answers and logs is the guest's side.
class TranslatingBackend final : public Backend {
  public:
    TranslatingBackend(std::unique_ptr<Backend> wire, const MacTranslation& translation) noexcept
        : wire_(std::move(wire)), translation_(translation) {}

    [[nodiscard]] unsigned queues() const noexcept override { return wire_->queues(); }
    [[nodiscard]] int fd(unsigned queue) const noexcept override { return wire_->fd(queue); }
    [[nodiscard]] Offloads offloads() const noexcept override { return wire_->offloads(); }
    void set_receive_offloads(Offloads wanted) noexcept override {
        wire_->set_receive_offloads(wanted);
    }
    void set_active_queues(unsigned count) noexcept override { wire_->set_active_queues(count); }
    [[nodiscard]] Received receive(unsigned queue, std::span<std::byte> buffer) noexcept override;
    [[nodiscard]] bool can_send(unsigned queue) noexcept override { return wire_->can_send(queue); }
    [[nodiscard]] IoStatus send(unsigned queue, std::span<const iovec> packet) noexcept override;
    [[nodiscard]] bool flush(unsigned queue) noexcept override { return wire_->flush(queue); }

  private:
    std::unique_ptr<Backend> wire_;
    MacTranslation translation_;
};

}  // namespace masu::net

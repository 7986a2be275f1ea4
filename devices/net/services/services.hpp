// Everything the monitor answers on one interface: DHCP and DHCPv6, ARP, neighbour and router
// discovery, ping of the gateway, and TCP port 80 of the metadata addresses.
#pragma once

#include <deque>
#include <memory>

#include "devices/net/guest_services.hpp"
#include "devices/net/services/packet_writer.hpp"
#include "devices/net/services/service_config.hpp"
#include "devices/net/services/tcp_responder.hpp"

namespace masu::net {

// No socket of the host is involved: frames of the guest come in, frames for it go out, and nothing
// from outside is ever looked at. Loop thread, but for reset().
class Services final : public GuestServices {
  public:
    // Answers that wait for the guest to fetch them; more are dropped, as on a wire.
    static constexpr std::size_t max_queued = 64;

    // `application` serves TCP port 80 of the metadata addresses; null where there are none.
    // Borrowed.
    Services(ServiceConfig config, TcpApplication* application, std::uint64_t seed);

    [[nodiscard]] bool wants(std::span<const std::byte> headers) const noexcept override;
    [[nodiscard]] bool impersonates(std::span<const std::byte> headers) const noexcept override;
    void receive(std::span<const std::byte> frame, Nanoseconds now) override;
    [[nodiscard]] std::span<const std::byte> take_frame(Nanoseconds now) override;
    [[nodiscard]] std::optional<Nanoseconds> next_deadline() const noexcept override;
    void reset() noexcept override;

    [[nodiscard]] const ServiceConfig& config() const noexcept { return config_; }

  private:
    [[nodiscard]] bool serves_dhcp(const Packet& packet) const noexcept;
    [[nodiscard]] bool serves_dhcpv6(const Packet& packet) const noexcept;
    [[nodiscard]] bool serves_discovery(const Packet& packet) const noexcept;

    const ServiceConfig config_;
    std::optional<TcpResponder> tcp_;
    std::deque<Bytes> queued_;
    Bytes current_;
};

}  // namespace masu::net

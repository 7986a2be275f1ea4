// Which frame is whose.
#include "devices/net/services/services.hpp"

#include <algorithm>

#include "devices/net/services/dhcp.hpp"
#include "devices/net/services/dhcpv6.hpp"
#include "devices/net/services/neighbors.hpp"
#include "devices/net/services/read_packet.hpp"

namespace masu::net {
namespace {

constexpr std::uint16_t http_port = 80;
constexpr std::uint8_t router_solicitation = 133;
constexpr std::uint8_t router_advertisement = 134;
constexpr std::uint8_t neighbor_advertisement = 136;
constexpr std::size_t udp_header_size = 8;

std::optional<std::span<const std::byte>> udp_payload(const Packet& packet,
                                                      std::span<const std::byte> frame) {
    const std::size_t begin = std::size_t{packet.transport_offset} + udp_header_size;
    const std::size_t end = std::size_t{packet.network_offset} + packet.ip_length;
    if (begin > end || end > frame.size())
        return std::nullopt;
    return frame.subspan(begin, end - begin);
}

}  // namespace

Services::Services(ServiceConfig config, TcpApplication* application, std::uint64_t seed)
    : config_(std::move(config)) {
    if (application != nullptr)
        tcp_.emplace(*application, service_mac, seed);
}

bool Services::serves_dhcp(const Packet& packet) const noexcept {
    const auto& tuple = packet.tuple;
    return config_.ipv4 && packet.kind == Packet::Kind::Ip && tuple.protocol == protocol::udp &&
           tuple.source.family == Family::V4 && !packet.is_fragment &&
           tuple.source_port == dhcp_client_port && tuple.destination_port == dhcp_server_port;
}

bool Services::serves_dhcpv6(const Packet& packet) const noexcept {
    const auto& tuple = packet.tuple;
    return config_.ipv6 && packet.kind == Packet::Kind::Ip && tuple.protocol == protocol::udp &&
           !packet.is_fragment && tuple.source_port == dhcpv6_client_port &&
           tuple.destination_port == dhcpv6_server_port && tuple.destination == dhcpv6_servers &&
           tuple.source.is_link_local_v6() && packet.source_mac == config_.guest_mac;
}

bool Services::serves_discovery(const Packet& packet) const noexcept {
    if (packet.kind != Packet::Kind::Ip || !packet.is_ndp)
        return false;
    if (packet.tuple.icmp_type() == router_solicitation)
        return config_.ipv6 && config_.ipv6->local_gateway;
    return asks_for_neighbor(config_, packet);
}

bool Services::wants(std::span<const std::byte> headers) const noexcept {
    // A segmented frame is longer than what is seen of it, and its IP length says so.
    if (headers.size() < ethernet_header_size)
        return false;
    const auto packet = read_packet(headers, max_frame_size);
    if (!packet)
        return false;
    if (packet->kind == Packet::Kind::Arp)
        return !packet->arp.is_reply && config_.is_local(packet->arp.target);
    return serves_dhcp(*packet) || serves_dhcpv6(*packet) || serves_discovery(*packet) ||
           config_.is_local(packet->tuple.destination);
}

bool Services::impersonates(std::span<const std::byte> headers) const noexcept {
    const auto packet = read_packet(headers);
    if (!packet)
        return false;
    if (packet->kind == Packet::Kind::Arp)
        return config_.is_local(packet->arp.sender);
    const auto& tuple = packet->tuple;
    if (config_.is_local(tuple.source))
        return true;
    if (config_.ipv4 && tuple.protocol == protocol::udp && tuple.source_port == dhcp_server_port &&
        tuple.destination_port == dhcp_client_port)
        return true;
    if (config_.ipv6 && tuple.protocol == protocol::udp &&
        tuple.source_port == dhcpv6_server_port && tuple.destination_port == dhcpv6_client_port)
        return true;
    if (!packet->is_ndp)
        return false;
    return (tuple.icmp_type() == router_advertisement && config_.ipv6 &&
            config_.ipv6->local_gateway) ||
           (tuple.icmp_type() == neighbor_advertisement && config_.is_local(packet->ndp.target));
}

void Services::receive(std::span<const std::byte> frame, Nanoseconds now) {
    const auto packet = read_packet(frame);
    if (!packet || queued_.size() >= max_queued)
        return;
    Bytes answer;
    bool answered = false;
    if (packet->kind == Packet::Kind::Arp) {
        answered = answer_arp(config_, *packet, answer);
    } else if (serves_dhcp(*packet)) {
        if (const auto message = udp_payload(*packet, frame))
            answered = answer_dhcp(config_, *message, answer);
    } else if (serves_dhcpv6(*packet)) {
        if (const auto message = udp_payload(*packet, frame))
            answered = answer_dhcpv6(config_, packet->tuple.source, *message, answer);
    } else if (serves_discovery(*packet)) {
        answered = answer_discovery(config_, *packet, answer);
    } else if (packet->tuple.protocol == protocol::tcp &&
               packet->tuple.destination_port == http_port && tcp_ &&
               std::ranges::find(config_.metadata, packet->tuple.destination) !=
                   config_.metadata.end()) {
        tcp_->receive(*packet, frame, now);
    } else {
        answered = answer_echo(config_, *packet, frame, answer);
    }
    if (answered)
        queued_.push_back(std::move(answer));
}

std::span<const std::byte> Services::take_frame(Nanoseconds now) {
    if (!queued_.empty()) {
        current_ = std::move(queued_.front());
        queued_.pop_front();
        return current_;
    }
    if (tcp_ && tcp_->next(current_, now))
        return current_;
    return {};
}

std::optional<Nanoseconds> Services::next_deadline() const noexcept {
    return tcp_ ? tcp_->next_deadline() : std::nullopt;
}

void Services::reset() noexcept {
    queued_.clear();
    if (tcp_)
        tcp_->reset();
}

}  // namespace masu::net

// Services that no rule filters: DHCP, the resolver, time. And the resolver's messages, where rules
// name names.
#include <algorithm>
#include <cstring>

#include "devices/net/firewall/firewall_state.hpp"
#include "devices/net/firewall/wire.hpp"

namespace masu::net {
namespace {

constexpr std::uint16_t dhcp_server_port = 67;
constexpr std::uint16_t dhcp_client_port = 68;
constexpr std::uint16_t dhcpv6_client_port = 546;
constexpr std::uint16_t dhcpv6_server_port = 547;
constexpr std::uint16_t dns_port = 53;
constexpr std::uint16_t ntp_port = 123;
constexpr Address broadcast = Address::v4(0xffff'ffffU);
// ff02::1:2 (RFC 8415, 7.1)
constexpr Address dhcpv6_servers = Address::v6(0xff02'0000'0000'0000U, 0x1'0002);

bool contains(const std::vector<Address>& list, const Address& address) noexcept {
    return std::ranges::find(list, address) != list.end();
}

std::uint32_t add_words(std::span<const std::byte> bytes, std::uint32_t sum) noexcept {
    for (std::size_t i = 0; i + 1 < bytes.size(); i += 2)
        sum += get16(&bytes[i]);
    if (bytes.size() % 2 != 0)
        sum += static_cast<std::uint32_t>(get8(&bytes.back())) << 8;
    return sum;
}
// RFC 1071
std::uint16_t checksum(std::uint32_t sum) noexcept {
    while ((sum >> 16) != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
}

// The UDP payload of a frame that is all there; empty when the UDP length leaves bytes unaccounted.
std::span<const std::byte> udp_payload(const Frame& frame, const Packet& packet) noexcept {
    const std::size_t end = packet.network_offset + packet.ip_length;
    const std::size_t size = get16(&frame.bytes[packet.transport_offset + 4U]);
    if (end > frame.bytes.size() || packet.transport_offset + size != end)
        return {};
    return frame.bytes.subspan(packet.payload_offset, end - packet.payload_offset);
}

Verdict need_whole(const Frame& frame) noexcept {
    return frame.length <= max_inspected_bytes
               ? Verdict{.action = Action::NeedWholeFrame, .reason = Reason::ExemptService}
               : drop(Reason::NameRefused);
}

// The frame that brings `message` from the resolver to the guest, in reply to `packet`.
std::size_t write_reply(const Frame& query, const Packet& packet, std::size_t message_size,
                        std::span<std::byte> out) noexcept {
    const bool v4 = packet.tuple.source.family == Family::V4;
    const std::size_t ip_size = v4 ? 20 : 40;
    const auto udp_size = static_cast<std::uint16_t>(8 + message_size);
    std::memcpy(&out[0], packet.source_mac.data(), 6);
    std::memcpy(&out[6], packet.destination_mac.data(), 6);
    std::memcpy(&out[12], &query.bytes[12], 2);
    auto* ip = &out[14];
    auto* udp = ip + ip_size;
    const auto* asked = &query.bytes[packet.network_offset];
    std::memset(ip, 0, ip_size);
    const std::size_t address_size = v4 ? 4 : 16;
    auto* addresses = ip + (v4 ? 12 : 8);
    const auto* asked_addresses = asked + (v4 ? 12 : 8);
    std::memcpy(addresses, asked_addresses + address_size, address_size);
    std::memcpy(addresses + address_size, asked_addresses, address_size);
    if (v4) {
        put8(ip, 0x45);
        put16(ip + 2, static_cast<std::uint16_t>(ip_size + udp_size));
        put16(ip + 6, 0x4000);  // do not fragment
        put8(ip + 8, 64);
        put8(ip + 9, protocol::udp);
        put16(ip + 10, checksum(add_words({ip, ip_size}, 0)));
    } else {
        put8(ip, 0x60);
        put16(ip + 4, udp_size);
        put8(ip + 6, protocol::udp);
        put8(ip + 7, 64);
    }
    put16(udp, packet.tuple.destination_port);
    put16(udp + 2, packet.tuple.source_port);
    put16(udp + 4, udp_size);
    put16(udp + 6, 0);
    auto sum = add_words({addresses, 2 * address_size}, protocol::udp + udp_size);
    const auto check = checksum(add_words({udp, udp_size}, sum));
    put16(udp + 6, check == 0 ? 0xffff : check);
    return 14 + ip_size + udp_size;
}

}  // namespace

// RFC 2131, RFC 8415. Nothing for other traffic.
std::optional<Verdict> FirewallState::judge_dhcp(Direction direction,
                                                 const Packet& packet) noexcept {
    const auto& tuple = packet.tuple;
    if (packet.is_fragment)
        return std::nullopt;
    const bool v4 = tuple.source.family == Family::V4;
    const auto client = v4 ? dhcp_client_port : dhcpv6_client_port;
    const auto server = v4 ? dhcp_server_port : dhcpv6_server_port;
    if (direction == Direction::Egress) {
        if (tuple.source_port != client || tuple.destination_port != server)
            return std::nullopt;
        const bool own = may_have(tuple.source);
        const bool to_all = tuple.destination == (v4 ? broadcast : dhcpv6_servers);
        if (to_all && (own || (v4 && tuple.source.is_unspecified())))
            return config.dhcp_on_wire ? pass(Reason::ExemptService) : local();
        // A lease is renewed with the server that gave it.
        if (own && config.dhcp_on_wire && v4 && !dhcp_server.is_unspecified() &&
            tuple.destination == dhcp_server)
            return pass(Reason::ExemptService);
        return std::nullopt;
    }
    if (tuple.source_port != server || tuple.destination_port != client)
        return std::nullopt;
    if (!config.dhcp_on_wire || is_local(tuple.source) || owns(tuple.source) ||
        is_martian(tuple.source))
        return drop(Reason::SourceCheck);
    if (!may_have(tuple.destination) && !(v4 && tuple.destination == broadcast))
        return drop(Reason::DestinationCheck);
    const bool believed = !v4 ? tuple.source.is_link_local_v6()
                          : config.dhcp_servers.empty()
                              ? is_private(tuple.source)
                              : contains(config.dhcp_servers, tuple.source);
    if (!believed)
        return std::nullopt;
    if (v4)
        dhcp_server = tuple.source;
    return pass(Reason::ExemptService);
}

// Between the guest and the resolver, on DNS's port.
bool FirewallState::is_dns(Direction direction, const Tuple& tuple) const noexcept {
    if (tuple.protocol != protocol::udp && tuple.protocol != protocol::tcp)
        return false;
    const bool out = direction == Direction::Egress;
    const auto& server = out ? tuple.destination : tuple.source;
    return (out ? tuple.destination_port : tuple.source_port) == dns_port &&
           (contains(config.resolvers, server) ||
            (names.active() && contains(config.name_servers, server)));
}

bool FirewallState::is_exempt(Direction direction, const Tuple& tuple) const noexcept {
    if (is_dns(direction, tuple))
        return true;
    if (tuple.protocol != protocol::udp)
        return false;
    return direction == Direction::Egress
               ? tuple.destination_port == ntp_port &&
                     contains(config.time_servers, tuple.destination)
               : tuple.source_port == ntp_port && contains(config.time_servers, tuple.source);
}

// Nothing when the query may go out.
std::optional<Verdict> FirewallState::judge_dns_query(const Frame& frame,
                                                      const Packet& packet) noexcept {
    // A stream would have to be put together to be read; fragments likewise.
    if (packet.tuple.protocol == protocol::tcp || packet.is_fragment)
        return drop(Reason::NameRefused);
    if (frame.bytes.size() < frame.length)
        return need_whole(frame);
    const auto message = udp_payload(frame, packet);
    const auto question = read_dns_query(message);
    if (!question)
        return drop(Reason::NameRefused);
    if (names.allows(question->name.view())) {
        names.note_query(packet.tuple.destination, packet.tuple.source_port, *question, now);
        return std::nullopt;
    }
    const std::size_t head = 14 + (packet.tuple.source.family == Family::V4 ? 20 : 40) + 8;
    const bool recursion_desired = (get8(&message[2]) & 1) != 0;
    const auto size = write_dns_refusal(*question, recursion_desired,
                                        std::span(answer).subspan(head).first<max_refusal>());
    answer_size = write_reply(frame, packet, size, answer);
    return Verdict{.action = Action::Answer, .reason = Reason::NameRefused};
}

// Nothing when the answer can be judged as any packet: it is all there.
std::optional<Verdict> FirewallState::look_at_dns_answer(const Frame& frame,
                                                         const Packet& packet) noexcept {
    if (packet.tuple.protocol == protocol::tcp || packet.is_fragment)
        return drop(Reason::NameRefused);
    if (frame.bytes.size() < frame.length)
        return need_whole(frame);
    return std::nullopt;
}

void FirewallState::learn_dns_answer(const Frame& frame, const Packet& packet) noexcept {
    DnsAnswer message;
    if (!read_dns_answer(udp_payload(frame, packet), message) ||
        !names.take_query(packet.tuple.source, packet.tuple.destination_port, message.question,
                          now))
        return;
    for (const auto& [address, ttl] : std::span(message.entries).first(message.count)) {
        if (is_martian(address) || is_local(address) || owns(address) ||
            (is_private(address) && !rules->private_name_answers()))
            continue;
        names.admit(message.question.name.view(), address, ttl, now);
    }
}

}  // namespace masu::net

// DHCP messages, in and out.
#include "devices/net/services/dhcp.hpp"

#include <algorithm>
#include <optional>

#include "devices/net/firewall/wire.hpp"

namespace masu::net {
namespace {

// RFC 2131, 2: the fixed part, and where fields lie in it.
constexpr std::size_t fixed_size = 236;
constexpr std::size_t ciaddr_at = 12;
constexpr std::size_t giaddr_at = 24;
constexpr std::size_t chaddr_at = 28;
constexpr std::size_t smallest_message = 300;  // what BOOTP clients insist on

constexpr std::uint32_t lease_seconds = 3600;

enum Option : std::uint8_t {
    Pad = 0,
    SubnetMask = 1,
    Router = 3,
    DomainNameServer = 6,
    HostName = 12,
    InterfaceMtu = 26,
    RequestedAddress = 50,
    LeaseTime = 51,
    MessageType = 53,
    ServerIdentifier = 54,
    ClientIdentifier = 61,
    ClasslessRoutes = 121,
    End = 255,
};

enum Message : std::uint8_t {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Decline = 4,
    Ack = 5,
    Nak = 6,
    Release = 7,
    Inform = 8,
};

struct Request_ {
    std::uint8_t type = 0;
    std::optional<Address> requested;
    std::optional<Address> server;
};

// The options after the cookie; nothing for a list that is cut off or a message without a type.
std::optional<Request_> parse_options(std::span<const std::byte> options) {
    Request_ request;
    while (!options.empty()) {
        const auto code = get8(options.data());
        if (code == End)
            break;
        if (code == Pad) {
            options = options.subspan(1);
            continue;
        }
        if (options.size() < 2)
            return std::nullopt;
        const std::size_t length = get8(&options[1]);
        if (options.size() < 2 + length)
            return std::nullopt;
        const auto value = options.subspan(2, length);
        if (code == MessageType && length == 1)
            request.type = get8(value.data());
        else if (code == RequestedAddress && length == 4)
            request.requested = get_address4(value.data());
        else if (code == ServerIdentifier && length == 4)
            request.server = get_address4(value.data());
        options = options.subspan(2 + length);
    }
    return request.type == 0 ? std::nullopt : std::optional(request);
}

// The server's own address: the gateway's, or else one that no packet is ever sent to.
Address server_address(const Ipv4Network& network) {
    return network.gateway.value_or(Address::v4(0xa9fea9fe));
}

std::uint8_t reply_type(const Ipv4Network& network, const Request_& request,
                        const Address& client) {
    switch (request.type) {
        case Discover:
            return Offer;
        case Inform:
            return Ack;
        case Request: {
            if (request.server && *request.server != server_address(network))
                return 0;  // it chose another server
            // RFC 2131, 4.3.2: what it asks for is in the option while it has no address, in
            // ciaddr when it renews.
            const auto wanted = request.requested.value_or(client);
            return wanted == network.address ? Ack : Nak;
        }
        default:
            return 0;  // DECLINE and RELEASE change nothing: the lease is fixed
    }
}

void put_option(PacketWriter& writer, std::uint8_t code, std::span<const std::byte> value) {
    writer.u8(code).u8(static_cast<unsigned>(value.size())).bytes(value);
}

// RFC 3442: with this option clients ignore Router, so the default route is in it as well.
// Without a gateway, a route says that the metadata service is on this link: router 0.0.0.0.
void put_routes(PacketWriter& writer, const ServiceConfig& config) {
    Bytes routes;
    PacketWriter list(routes);
    if (const auto& gateway = config.ipv4->gateway)
        list.u8(0).address(*gateway);
    else
        for (const auto& address : config.metadata)
            if (address.family == Family::V4)
                list.u8(32).address(address).u32(0);
    if (!routes.empty())
        put_option(writer, ClasslessRoutes, routes);
}

void put_lease(PacketWriter& writer, const ServiceConfig& config, bool inform) {
    const auto& network = *config.ipv4;
    if (!inform)
        writer.u8(LeaseTime).u8(4).u32(lease_seconds);
    writer.u8(SubnetMask)
        .u8(4)
        .u32(network.prefix_length == 0 ? 0 : ~std::uint32_t{0} << (32 - network.prefix_length));
    if (network.gateway)
        writer.u8(Router).u8(4).address(*network.gateway);
    put_routes(writer, config);
    if (!network.dns.empty()) {
        writer.u8(DomainNameServer).u8(static_cast<unsigned>(4 * network.dns.size()));
        for (const auto& server : network.dns)
            writer.address(server);
    }
    if (config.hostname)
        put_option(writer, HostName,
                   std::as_bytes(std::span(*config.hostname))
                       .first(std::min<std::size_t>(config.hostname->size(), 63)));
    if (config.mtu)
        writer.u8(InterfaceMtu).u8(2).u16(*config.mtu);
}

}  // namespace

bool answer_dhcp(const ServiceConfig& config, std::span<const std::byte> message, Bytes& out) {
    // A relay (giaddr) has no business here; the client is the guest itself.
    if (message.size() < fixed_size + 4 || get8(message.data()) != 1 || get8(&message[1]) != 1 ||
        get8(&message[2]) != 6 || get32(&message[giaddr_at]) != 0 ||
        get_mac(&message[chaddr_at]) != config.guest_mac ||
        get32(&message[fixed_size]) != dhcp_magic_cookie)
        return false;
    const auto request = parse_options(message.subspan(fixed_size + 4));
    if (!request)
        return false;
    const auto& network = *config.ipv4;
    const auto client = get_address4(&message[ciaddr_at]);
    const auto type = reply_type(network, *request, client);
    if (type == 0)
        return false;
    const bool inform = request->type == Inform;
    const bool nak = type == Nak;

    Bytes reply;
    PacketWriter writer(reply);
    writer.u8(2).u8(1).u8(6).u8(0).bytes(message.subspan(4, 4));  // xid
    writer.u16(0).bytes(message.subspan(10, 2));                  // flags
    writer.address(nak ? Address::v4(0) : client);
    writer.address(nak || inform ? Address::v4(0) : network.address);
    writer.address(Address::v4(0)).address(Address::v4(0));
    writer.bytes(message.subspan(chaddr_at, 16)).zeros(64 + 128).u32(dhcp_magic_cookie);
    writer.u8(MessageType).u8(1).u8(type);
    writer.u8(ServerIdentifier).u8(4).address(server_address(network));
    if (!nak)
        put_lease(writer, config, inform);
    writer.u8(End);
    if (reply.size() < smallest_message)
        reply.resize(smallest_message);

    // To the address it will have: its stack takes the frame because of the MAC. A NAK, and what
    // the client asks to have broadcast, goes to everyone.
    const bool broadcast = nak || (get16(&message[10]) & 0x8000) != 0;
    const auto to = broadcast ? Address::v4(0xffffffff) : inform ? client : network.address;
    write_udp(
        out,
        {.from_mac = service_mac,
         .to_mac = broadcast ? MacAddress{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} : config.guest_mac,
         .from = server_address(network),
         .to = to},
        dhcp_server_port, dhcp_client_port, reply);
    return true;
}

}  // namespace masu::net

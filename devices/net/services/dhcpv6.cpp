// DHCPv6 messages, in and out. Nothing is kept between them: whoever asks is told the same lease.
#include "devices/net/services/dhcpv6.hpp"

#include <algorithm>
#include <optional>
#include <vector>

#include "devices/net/firewall/wire.hpp"

namespace masu::net {
namespace {

// RFC 8415, 7.3
enum Message : std::uint8_t {
    Solicit = 1,
    Advertise = 2,
    Request = 3,
    Confirm = 4,
    Renew = 5,
    Rebind = 6,
    Reply = 7,
    Release = 8,
    Decline = 9,
    InformationRequest = 11,
};

// RFC 8415, 21; RFC 3646, 3
enum Option : std::uint16_t {
    ClientId = 1,
    ServerId = 2,
    IaNa = 3,
    IaTa = 4,
    IaAddress = 5,
    OptionRequest = 6,
    Preference = 7,
    StatusCode = 13,
    RapidCommit = 14,
    DnsServers = 23,
    IaPd = 25,
};

// RFC 8415, 21.13
enum Status : std::uint16_t {
    Success = 0,
    NoAddrsAvail = 2,
    NoBinding = 3,
    NotOnLink = 4,
    NoPrefixAvail = 6,
};

constexpr std::size_t header_size = 4;  // type, transaction id
// RFC 8415, 11.1: a type of 2 bytes, and 1 to 128 more.
constexpr std::size_t smallest_duid = 3;
constexpr std::size_t largest_duid = 130;
// An answer repeats them, and is to fit into the smallest MTU of IPv6.
constexpr std::size_t max_associations = 4;
constexpr std::size_t max_addresses = 8;

constexpr std::uint32_t lease_seconds = 3600;
constexpr std::uint32_t renew_seconds = lease_seconds / 2;       // T1
constexpr std::uint32_t rebind_seconds = lease_seconds / 5 * 4;  // T2

using Span = std::span<const std::byte>;

struct Association {
    std::uint16_t kind = IaNa;  // or IaTa, IaPd
    std::uint32_t id = 0;
    std::vector<Address> addresses;
};

struct ClientMessage {
    std::uint8_t type = 0;
    Span transaction;
    Span client;  // identifiers; empty where there is none
    Span server;
    bool rapid_commit = false;
    bool wants_dns = true;  // unless it lists what it wants, and that is not in the list
    std::vector<Association> associations;
    std::size_t addresses = 0;  // of all associations
};

// Calls `each` with code and value of every option; false where one is cut off, or refused by it.
template <class Each>
bool all_options(Span options, const Each& each) {
    while (!options.empty()) {
        if (options.size() < 4)
            return false;
        const std::size_t length = get16(&options[2]);
        if (options.size() < 4 + length || !each(get16(options.data()), options.subspan(4, length)))
            return false;
        options = options.subspan(4 + length);
    }
    return true;
}

// RFC 8415, 16: an identifier comes once.
bool take_duid(Span& duid, Span value) {
    if (!duid.empty() || value.size() < smallest_duid || value.size() > largest_duid)
        return false;
    duid = value;
    return true;
}

bool take_association(ClientMessage& message, std::uint16_t kind, Span value) {
    const std::size_t head = kind == IaTa ? 4 : 12;
    if (value.size() < head || message.associations.size() == max_associations)
        return false;
    Association added{.kind = kind, .id = get32(value.data()), .addresses = {}};
    const auto take_address = [&](std::uint16_t code, Span inner) {
        if (code != IaAddress)
            return true;
        if (inner.size() < 24 || ++message.addresses > max_addresses)
            return false;
        added.addresses.push_back(get_address6(inner.data()));
        return true;
    };
    if (!all_options(value.subspan(head), take_address))
        return false;
    message.associations.push_back(std::move(added));
    return true;
}

bool take_option(ClientMessage& message, std::uint16_t code, Span value) {
    switch (code) {
        case ClientId:
            return take_duid(message.client, value);
        case ServerId:
            return take_duid(message.server, value);
        case IaNa:
        case IaTa:
        case IaPd:
            return take_association(message, code, value);
        case RapidCommit:
            message.rapid_commit = true;
            return true;
        case OptionRequest:
            message.wants_dns = false;
            for (std::size_t at = 0; at + 2 <= value.size(); at += 2)
                message.wants_dns |= get16(&value[at]) == DnsServers;
            return value.size() % 2 == 0;
        default:
            return true;
    }
}

// DUID-LL of the services' MAC (RFC 8415, 11.4). The same for every interface, so that a clone's
// guest renews its lease with the server it knows.
Bytes server_duid() {
    Bytes duid;
    PacketWriter(duid).u16(3).u16(1).mac(service_mac);
    return duid;
}

// RFC 8415, 16.2 to 16.12: who must be named in which message.
bool is_acceptable(const ClientMessage& message) {
    const bool to_us = std::ranges::equal(message.server, server_duid());
    switch (message.type) {
        case Solicit:
        case Confirm:
        case Rebind:
            return !message.client.empty() && message.server.empty();
        case Request:
        case Renew:
        case Release:
        case Decline:
            return !message.client.empty() && to_us;
        case InformationRequest:
            return (message.server.empty() || to_us) && message.associations.empty();
        default:
            return false;  // of servers and relays
    }
}

std::optional<ClientMessage> parse(Span bytes) {
    if (bytes.size() < header_size)
        return std::nullopt;
    ClientMessage message{.type = get8(bytes.data()),
                          .transaction = bytes.subspan(1, 3),
                          .client = {},
                          .server = {},
                          .associations = {}};
    const auto take = [&](std::uint16_t code, Span value) {
        return take_option(message, code, value);
    };
    if (!all_options(bytes.subspan(header_size), take) || !is_acceptable(message))
        return std::nullopt;
    return message;
}

void put_option(PacketWriter& writer, std::uint16_t code, Span value) {
    writer.u16(code).u16(static_cast<std::uint32_t>(value.size())).bytes(value);
}

void put_status(PacketWriter& writer, Status status) {
    writer.u16(StatusCode).u16(2).u16(status);
}

void put_address(PacketWriter& writer, const Address& address, std::uint32_t lifetime) {
    writer.u16(IaAddress).u16(24).address(address).u32(lifetime).u32(lifetime);
}

// `inner`: the options in the association.
void put_association(PacketWriter& writer, const Association& association, bool leased,
                     Span inner) {
    Bytes value;
    PacketWriter head(value);
    head.u32(association.id);
    if (association.kind != IaTa)
        head.u32(leased ? renew_seconds : 0).u32(leased ? rebind_seconds : 0);
    head.bytes(inner);
    put_option(writer, association.kind, value);
}

// The first association for a lasting address gets the lease, the others are told that there is
// nothing more (RFC 8415, 18.3.2, 18.3.4, 18.3.5, 18.3.9).
void put_leases(PacketWriter& writer, const ClientMessage& message, const Ipv6Network& network) {
    const auto prefix = Prefix::canonical(network.address, network.prefix_length);
    const bool extends = message.type == Renew || message.type == Rebind;
    bool given = false;
    for (const auto& association : message.associations) {
        Bytes inner;
        PacketWriter options(inner);
        bool leased = false;
        if (association.kind != IaNa || given) {
            put_status(options, association.kind == IaPd ? NoPrefixAvail : NoAddrsAvail);
        } else if (message.type == Request &&
                   !std::ranges::all_of(association.addresses, [&](const Address& address) {
                       return prefix.contains(address);
                   })) {
            put_status(options, NotOnLink);
        } else {
            given = leased = true;
            put_address(options, network.address, lease_seconds);
            // What it had before it became a clone.
            for (const auto& old : association.addresses)
                if (extends && old != network.address)
                    put_address(options, old, 0);
        }
        put_association(writer, association, leased, inner);
    }
}

void put_dns(PacketWriter& writer, const ClientMessage& message, const Ipv6Network& network) {
    if (network.dns.empty() || !message.wants_dns)
        return;
    writer.u16(DnsServers).u16(static_cast<std::uint32_t>(16 * network.dns.size()));
    for (const auto& server : network.dns)
        writer.address(server);
}

// RFC 8415, 18.3.7, 18.3.8. The lease stays as it is: there is no other to give.
void put_returned(PacketWriter& writer, const ClientMessage& message, const Ipv6Network& network) {
    put_status(writer, Success);
    for (const auto& association : message.associations) {
        const auto& addresses = association.addresses;
        if (association.kind == IaNa &&
            std::ranges::find(addresses, network.address) != addresses.end())
            continue;
        Bytes inner;
        PacketWriter options(inner);
        put_status(options, NoBinding);
        put_association(writer, association, false, inner);
    }
}

// RFC 8415, 18.3.3; nothing where the client names no address. The guest may use one address, so
// another of the link is as wrong as one from elsewhere.
std::optional<Status> confirm(const ClientMessage& message, const Ipv6Network& network) {
    if (message.addresses == 0)
        return std::nullopt;
    for (const auto& association : message.associations)
        for (const auto& address : association.addresses)
            if (address != network.address)
                return NotOnLink;
    return Success;
}

}  // namespace

bool answer_dhcpv6(const ServiceConfig& config, const Address& from,
                   std::span<const std::byte> message, Bytes& out) {
    const auto client = parse(message);
    if (!client)
        return false;
    const auto& network = *config.ipv6;
    const bool advertise = client->type == Solicit && !client->rapid_commit;

    Bytes reply;
    PacketWriter writer(reply);
    writer.u8(advertise ? Advertise : Reply).bytes(client->transaction);
    if (!client->client.empty())
        put_option(writer, ClientId, client->client);
    put_option(writer, ServerId, server_duid());
    switch (client->type) {
        case Solicit:
            // 255: the client need not wait for other servers.
            if (advertise)
                writer.u16(Preference).u16(1).u8(255);
            else
                writer.u16(RapidCommit).u16(0);
            [[fallthrough]];
        case Request:
        case Renew:
        case Rebind:
            put_leases(writer, *client, network);
            put_dns(writer, *client, network);
            break;
        case Confirm:
            if (const auto status = confirm(*client, network))
                put_status(writer, *status);
            else
                return false;
            break;
        case Release:
        case Decline:
            put_returned(writer, *client, network);
            break;
        default:  // InformationRequest
            put_dns(writer, *client, network);
            break;
    }
    write_udp(out,
              {.from_mac = service_mac,
               .to_mac = config.guest_mac,
               .from = network.local_gateway && network.gateway ? *network.gateway
                                                                : link_local_of(service_mac),
               .to = from},
              dhcpv6_server_port, dhcpv6_client_port, reply);
    return true;
}

}  // namespace masu::net

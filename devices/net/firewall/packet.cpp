// Reads a frame's headers into a Packet.
#include "devices/net/firewall/packet.hpp"

#include <algorithm>

#include "devices/net/firewall/wire.hpp"

namespace masu::net {
namespace {

constexpr std::uint16_t ethertype_ipv4 = 0x0800;
constexpr std::uint16_t ethertype_arp = 0x0806;
constexpr std::uint16_t ethertype_ipv6 = 0x86dd;
constexpr std::uint32_t ethernet_size = 14;
constexpr std::uint32_t ipv4_size = 20;
constexpr std::uint32_t ipv6_size = 40;
constexpr std::uint32_t max_extension_headers = 8;
constexpr std::uint32_t max_ndp_options = 32;

// IPv6 extension headers (RFC 8200, RFC 4302, RFC 7401, RFC 5533).
constexpr std::uint8_t hop_by_hop = 0;
constexpr std::uint8_t routing = 43;
constexpr std::uint8_t fragment_header = 44;
constexpr std::uint8_t authentication = 51;
constexpr std::uint8_t destination_options = 60;
constexpr std::uint8_t host_identity = 139;
constexpr std::uint8_t shim6 = 140;

enum class Trouble : std::uint8_t { None, Malformed, Unsupported };

// Positions run from the start of the frame. `end` is where the packet at hand ends by its own
// length fields, never beyond the frame; a read must lie before it and within the copied bytes.
struct Reader {
    std::span<const std::byte> bytes;
    std::uint32_t end;

    // What is wrong with reading `size` bytes at `at`: beyond the packet, or not copied.
    [[nodiscard]] Trouble check(std::uint32_t at, std::uint32_t size) const noexcept {
        if (at > end || size > end - at)
            return Trouble::Malformed;
        if (at > bytes.size() || size > bytes.size() - at)
            return Trouble::Unsupported;
        return Trouble::None;
    }
    [[nodiscard]] const std::byte* at(std::uint32_t position) const noexcept {
        return bytes.data() + position;
    }
};

bool is_icmp_query(std::uint8_t type) noexcept {
    // RFC 792, 950, 1256: echo, timestamp, information, address mask.
    return type == 0 || type == 8 || (type >= 13 && type <= 18);
}
bool is_icmp_error(std::uint8_t type) noexcept {
    return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}
bool is_ndp(std::uint8_t type) noexcept {
    return type >= 133 && type <= 137;
}

// RFC 791: walks the options; a source route would make the destination another one.
Trouble check_ipv4_options(const Reader& reader, std::uint32_t at, std::uint32_t end) noexcept {
    while (at < end) {
        const auto kind = get8(reader.at(at));
        if (kind == 0)
            return Trouble::None;
        if (kind == 1) {
            ++at;
            continue;
        }
        if (kind == 131 || kind == 137)
            return Trouble::Unsupported;
        if (end - at < 2)
            return Trouble::Malformed;
        const std::uint32_t size = get8(reader.at(at + 1));
        if (size < 2 || size > end - at)
            return Trouble::Malformed;
        at += size;
    }
    return Trouble::None;
}

// Where a chain of extension headers leads.
struct Chain {
    Trouble trouble = Trouble::None;
    std::uint8_t protocol = 0;
    std::uint32_t at = 0;          // the transport header, or what a later fragment carries
    std::uint32_t payload_at = 0;  // after the fragment header
    bool is_fragment = false;
    Fragment fragment;
};

Chain walk_extension_headers(const Reader& reader, std::uint32_t at, std::uint8_t next) noexcept {
    Chain chain;
    for (std::uint32_t count = 0; count <= max_extension_headers; ++count) {
        const bool known = next == hop_by_hop || next == routing || next == fragment_header ||
                           next == authentication || next == destination_options ||
                           next == host_identity || next == shim6;
        if (!known) {
            chain.protocol = next;
            chain.at = at;
            return chain;
        }
        if (chain.trouble = reader.check(at, 8); chain.trouble != Trouble::None)
            return chain;
        const auto* header = reader.at(at);
        std::uint32_t size = 8 + 8U * get8(header + 1);
        if (next == authentication)
            size = 4 * (2U + get8(header + 1));
        if ((next == hop_by_hop && count != 0) || (next == fragment_header && chain.is_fragment) ||
            size % 8 != 0) {
            chain.trouble = Trouble::Malformed;
            return chain;
        }
        // Segments left: the packet is on its way to somewhere else (RFC 5095 forbids type 0).
        if (next == routing && (get8(header + 2) == 0 || get8(header + 3) != 0)) {
            chain.trouble = Trouble::Unsupported;
            return chain;
        }
        if (next == fragment_header) {
            size = 8;
            const auto field = get16(header + 2);
            chain.fragment.id = get32(header + 4);
            chain.fragment.offset = field & 0xfff8;
            chain.fragment.more = (field & 1) != 0;
            // RFC 6946: a fragment that is whole is no fragment.
            chain.is_fragment = chain.fragment.offset != 0 || chain.fragment.more;
            chain.payload_at = at + size;
            if (chain.fragment.offset != 0) {
                chain.protocol = get8(header);
                chain.at = at + size;
                return chain;
            }
        }
        if (chain.trouble = reader.check(at, size); chain.trouble != Trouble::None)
            return chain;
        next = get8(header);
        at += size;
    }
    chain.trouble = Trouble::Unsupported;
    return chain;
}

// Ports, or type and identifier, from the first 8 bytes of a transport header that are there.
void read_transport(const std::byte* header, Tuple& tuple) noexcept {
    if (tuple.protocol == protocol::tcp || tuple.protocol == protocol::udp) {
        tuple.source_port = get16(header);
        tuple.destination_port = get16(header + 2);
    } else if (tuple.protocol == protocol::icmp || tuple.protocol == protocol::icmpv6) {
        tuple.destination_port = get16(header);
        const auto type = tuple.icmp_type();
        const bool query =
            tuple.protocol == protocol::icmp ? is_icmp_query(type) : type == 128 || type == 129;
        tuple.source_port = query ? get16(header + 4) : 0;
    }
}

bool has_ports(std::uint8_t protocol) noexcept {
    return protocol == protocol::tcp || protocol == protocol::udp || protocol == protocol::icmp ||
           protocol == protocol::icmpv6;
}

// The packet that an ICMP error quotes (RFC 792, RFC 4443): as much of it as fits, so its own
// length fields do not count. False where it cannot be read up to its ports.
bool read_embedded(const Reader& reader, std::uint32_t at, Family family, Tuple& tuple) noexcept {
    if (family == Family::V4) {
        if (reader.check(at, ipv4_size) != Trouble::None || get8(reader.at(at)) >> 4 != 4)
            return false;
        const std::uint32_t size = 4U * (get8(reader.at(at)) & 0xf);
        if (size < ipv4_size || (get16(reader.at(at + 6)) & 0x1fff) != 0)
            return false;
        tuple.protocol = get8(reader.at(at + 9));
        tuple.source = get_address4(reader.at(at + 12));
        tuple.destination = get_address4(reader.at(at + 16));
        at += size;
    } else {
        if (reader.check(at, ipv6_size) != Trouble::None || get8(reader.at(at)) >> 4 != 6)
            return false;
        tuple.source = get_address6(reader.at(at + 8));
        tuple.destination = get_address6(reader.at(at + 24));
        const auto chain = walk_extension_headers(reader, at + ipv6_size, get8(reader.at(at + 6)));
        if (chain.trouble != Trouble::None || chain.fragment.offset != 0)
            return false;
        tuple.protocol = chain.protocol;
        at = chain.at;
    }
    if (!has_ports(tuple.protocol))
        return true;
    if (reader.check(at, 8) != Trouble::None)
        return false;
    read_transport(reader.at(at), tuple);
    return true;
}

// RFC 4861, 4.6.1: the link-layer address among the options of a message, if there is one.
Trouble read_ndp(const Reader& reader, std::uint32_t at, std::uint8_t type, Ndp& ndp) noexcept {
    std::uint32_t options = at + 8;
    if (type == 135 || type == 136 || type == 137) {
        if (const auto trouble = reader.check(at, 24); trouble != Trouble::None)
            return trouble;
        ndp.target = get_address6(reader.at(at + 8));
        options = at + (type == 137 ? 40 : 24);
    } else if (type == 134) {
        options = at + 16;
    }
    if (options > reader.end)
        return Trouble::Malformed;
    for (std::uint32_t count = 0; options < reader.end; ++count) {
        if (count == max_ndp_options)
            return Trouble::Unsupported;
        if (const auto trouble = reader.check(options, 8); trouble != Trouble::None)
            // An advertisement may be longer than what was copied; its options say nothing to us.
            return trouble == Trouble::Unsupported && type == 134 ? Trouble::None : trouble;
        const auto kind = get8(reader.at(options));
        const std::uint32_t size = 8U * get8(reader.at(options + 1));
        if (size == 0 || size > reader.end - options)
            return Trouble::Malformed;
        if (kind == 1 || kind == 2) {
            // Two that differ could not be judged as one.
            const auto address = get_mac(reader.at(options + 2));
            if (size != 8 || (ndp.has_link_address && ndp.link_address != address))
                return Trouble::Malformed;
            ndp.link_address = address;
            ndp.has_link_address = true;
        }
        options += size;
    }
    return Trouble::None;
}

Trouble read_tcp(const Reader& reader, std::uint32_t at, Packet& packet) noexcept {
    if (const auto trouble = reader.check(at, 20); trouble != Trouble::None)
        return trouble;
    const auto* header = reader.at(at);
    const std::uint32_t size = 4U * (get8(header + 12) >> 4);
    if (size < 20 || size > reader.end - at)
        return Trouble::Malformed;
    packet.tcp_sequence = get32(header + 4);
    packet.tcp_acknowledgment = get32(header + 8);
    packet.tcp_flags = get8(header + 13) & 0x3f;
    packet.payload_offset = static_cast<std::uint16_t>(at + size);
    // No stack sends these; scanners do, to be let past filters.
    using namespace tcp_flag;
    const auto flags = packet.tcp_flags & (fin | syn | rst | ack);
    if (flags == 0 || (flags & (syn | fin)) == (syn | fin) || (flags & (syn | rst)) == (syn | rst))
        return Trouble::Malformed;
    return Trouble::None;
}

Trouble read_udp(const Reader& reader, std::uint32_t at, Packet& packet) noexcept {
    if (const auto trouble = reader.check(at, 8); trouble != Trouble::None)
        return trouble;
    const std::uint32_t size = get16(reader.at(at + 4));
    packet.payload_offset = static_cast<std::uint16_t>(at + 8);
    if (size < 8 || (!packet.is_fragment && size > reader.end - at))
        return Trouble::Malformed;
    return Trouble::None;
}

Trouble read_icmp(const Reader& reader, std::uint32_t at, Packet& packet) noexcept {
    if (const auto trouble = reader.check(at, 8); trouble != Trouble::None)
        return trouble;
    const auto type = get8(reader.at(at));
    const bool v6 = packet.tuple.protocol == protocol::icmpv6;
    if (v6 ? type < 128 : is_icmp_error(type)) {
        packet.embedded = {};
        packet.has_embedded =
            read_embedded(reader, at + 8, packet.tuple.source.family, packet.embedded);
    }
    if (!v6 || !is_ndp(type))
        return Trouble::None;
    if (packet.is_fragment)  // RFC 6980
        return Trouble::Malformed;
    packet.is_ndp = true;
    packet.ndp = {};
    return read_ndp(reader, at, type, packet.ndp);
}

// `at` is the transport header of a whole packet or a first fragment.
Trouble read_upper_layer(const Reader& reader, std::uint32_t at, Packet& packet) noexcept {
    auto& tuple = packet.tuple;
    // One family's ICMP in the other's packets means nothing, and rules could not name it.
    const bool v6 = tuple.source.family == Family::V6;
    if (tuple.protocol == (v6 ? protocol::icmp : protocol::icmpv6))
        return Trouble::Malformed;
    Trouble trouble = Trouble::None;
    if (tuple.protocol == protocol::tcp)
        trouble = read_tcp(reader, at, packet);
    else if (tuple.protocol == protocol::udp)
        trouble = read_udp(reader, at, packet);
    else if (has_ports(tuple.protocol))
        trouble = read_icmp(reader, at, packet);
    else
        return Trouble::None;
    if (trouble == Trouble::None)
        read_transport(reader.at(at), tuple);
    return trouble;
}

// `at` is where the payload of the IP packet begins, after the fragment header if there is one.
Trouble check_fragment(const Reader& reader, std::uint32_t at, Fragment& fragment) noexcept {
    const auto length = reader.end - at;
    if (length == 0 || (fragment.more && length % 8 != 0) || fragment.offset + length > 65535)
        return Trouble::Malformed;
    fragment.length = static_cast<std::uint16_t>(length);
    return Trouble::None;
}

Trouble read_ipv4(Reader reader, Packet& packet) noexcept {
    constexpr auto start = ethernet_size;
    if (const auto trouble = reader.check(start, ipv4_size); trouble != Trouble::None)
        return trouble;
    const auto* header = reader.at(start);
    const std::uint32_t size = 4U * (get8(header) & 0xf);
    const std::uint32_t total = get16(header + 2);
    if (get8(header) >> 4 != 4 || size < ipv4_size || total < size || total > reader.end - start)
        return Trouble::Malformed;
    reader.end = start + total;
    if (const auto trouble = reader.check(start, size); trouble != Trouble::None)
        return trouble;
    if (const auto trouble = check_ipv4_options(reader, start + ipv4_size, start + size);
        trouble != Trouble::None)
        return trouble;
    const auto field = get16(header + 6);
    packet.ip_length = total;
    packet.hop_limit = get8(header + 8);
    packet.tuple.protocol = get8(header + 9);
    packet.tuple.source = get_address4(header + 12);
    packet.tuple.destination = get_address4(header + 16);
    packet.transport_offset = static_cast<std::uint16_t>(start + size);
    packet.fragment.id = get16(header + 4);
    packet.fragment.offset = static_cast<std::uint16_t>((field & 0x1fff) * 8);
    packet.fragment.more = (field & 0x2000) != 0;
    packet.is_fragment = packet.fragment.more || packet.fragment.offset != 0;
    if ((field & 0x8000) != 0)
        return Trouble::Malformed;
    if (packet.is_fragment) {
        if (const auto trouble = check_fragment(reader, start + size, packet.fragment);
            trouble != Trouble::None || packet.fragment.offset != 0)
            return trouble;
    }
    return read_upper_layer(reader, start + size, packet);
}

Trouble read_ipv6(Reader reader, Packet& packet) noexcept {
    constexpr auto start = ethernet_size;
    if (const auto trouble = reader.check(start, ipv6_size); trouble != Trouble::None)
        return trouble;
    const auto* header = reader.at(start);
    const std::uint32_t payload = get16(header + 4);
    if (get8(header) >> 4 != 6 || payload > reader.end - start - ipv6_size)
        return Trouble::Malformed;
    reader.end = start + ipv6_size + payload;
    packet.ip_length = ipv6_size + payload;
    packet.hop_limit = get8(header + 7);
    packet.tuple.source = get_address6(header + 8);
    packet.tuple.destination = get_address6(header + 24);
    const auto chain = walk_extension_headers(reader, start + ipv6_size, get8(header + 6));
    if (chain.trouble != Trouble::None)
        return chain.trouble;
    packet.tuple.protocol = chain.protocol;
    packet.transport_offset = static_cast<std::uint16_t>(chain.at);
    packet.is_fragment = chain.is_fragment;
    packet.fragment = chain.fragment;
    if (chain.at > reader.end)
        return Trouble::Malformed;
    if (chain.is_fragment) {
        if (const auto trouble = check_fragment(reader, chain.payload_at, packet.fragment);
            trouble != Trouble::None || chain.fragment.offset != 0)
            return trouble;
    }
    return read_upper_layer(reader, chain.at, packet);
}

// RFC 826 for Ethernet and IPv4.
Trouble read_arp(const Reader& reader, Packet& packet) noexcept {
    constexpr auto start = ethernet_size;
    if (const auto trouble = reader.check(start, 28); trouble != Trouble::None)
        return trouble;
    const auto* message = reader.at(start);
    const auto operation = get16(message + 6);
    if (get16(message) != 1 || get16(message + 2) != ethertype_ipv4 || get8(message + 4) != 6 ||
        get8(message + 5) != 4 || (operation != 1 && operation != 2))
        return Trouble::Unsupported;
    packet.kind = Packet::Kind::Arp;
    packet.arp = {.is_reply = operation == 2,
                  .sender_mac = get_mac(message + 8),
                  .sender = get_address4(message + 14),
                  .target_mac = get_mac(message + 18),
                  .target = get_address4(message + 24)};
    return Trouble::None;
}

Trouble read_frame(const Frame& frame, Packet& packet) noexcept {
    const Reader reader{frame.bytes.first(std::min<std::size_t>(frame.bytes.size(), frame.length)),
                        frame.length};
    if (const auto trouble = reader.check(0, ethernet_size); trouble != Trouble::None)
        return trouble;
    packet.destination_mac = get_mac(reader.at(0));
    packet.source_mac = get_mac(reader.at(6));
    switch (get16(reader.at(12))) {
        case ethertype_ipv4:
            return read_ipv4(reader, packet);
        case ethertype_ipv6:
            return read_ipv6(reader, packet);
        case ethertype_arp:
            return read_arp(reader, packet);
        default:
            return Trouble::Unsupported;
    }
}

}  // namespace

std::optional<Reason> parse_packet(const Frame& frame, Packet& packet) noexcept {
    packet.kind = Packet::Kind::Ip;
    packet.tuple = {};
    packet.hop_limit = packet.tcp_flags = 0;
    packet.is_fragment = packet.is_ndp = packet.has_embedded = false;
    packet.fragment = {};
    packet.transport_offset = packet.payload_offset = 0;
    packet.ip_length = 0;
    switch (read_frame(frame, packet)) {
        case Trouble::None:
            return std::nullopt;
        case Trouble::Malformed:
            return Reason::MalformedFrame;
        case Trouble::Unsupported:
            break;
    }
    return Reason::UnsupportedFrame;
}

}  // namespace masu::net

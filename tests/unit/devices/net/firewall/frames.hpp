// Frames for tests: built from addresses and ports, or read from a line of text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "devices/net/firewall/address.hpp"
#include "devices/net/firewall/packet.hpp"
#include "devices/net/firewall/wire.hpp"

namespace masu::net::fake {

using Bytes = std::vector<std::byte>;

inline constexpr MacAddress guest_mac{0x06, 0, 0x0a, 0, 0, 0x10};
inline constexpr MacAddress gateway_mac{0x06, 0, 0x0a, 0, 0, 0x01};

inline Address address(std::string_view text) {
    return *parse_address(text);
}

// --- bytes --------------------------------------------------------------------------------------

inline void add8(Bytes& bytes, unsigned value) {
    bytes.push_back(static_cast<std::byte>(value));
}
inline void add16(Bytes& bytes, unsigned value) {
    add8(bytes, value >> 8);
    add8(bytes, value & 0xff);
}
inline void add32(Bytes& bytes, std::uint32_t value) {
    add16(bytes, value >> 16);
    add16(bytes, value & 0xffff);
}
inline void add(Bytes& bytes, const Bytes& more) {
    bytes.insert(bytes.end(), more.begin(), more.end());
}
inline void add_mac(Bytes& bytes, const MacAddress& mac) {
    for (const auto byte : mac)
        add8(bytes, byte);
}
inline void add_address(Bytes& bytes, const Address& value) {
    if (value.family == Family::V6)
        for (int shift = 56; shift >= 0; shift -= 8)
            add8(bytes, static_cast<unsigned>(value.high >> shift & 0xff));
    for (int shift = value.family == Family::V6 ? 56 : 24; shift >= 0; shift -= 8)
        add8(bytes, static_cast<unsigned>(value.low >> shift & 0xff));
}

// --- transport ----------------------------------------------------------------------------------

struct TcpFields {
    std::uint8_t flags = tcp_flag::syn;
    std::uint32_t sequence = 1000;
    std::uint32_t acknowledgment = 0;
};

inline Bytes tcp(std::uint16_t from, std::uint16_t to, const TcpFields& fields,
                 std::size_t data = 0) {
    Bytes bytes;
    add16(bytes, from);
    add16(bytes, to);
    add32(bytes, fields.sequence);
    add32(bytes, fields.acknowledgment);
    add8(bytes, 5 << 4);
    add8(bytes, fields.flags);
    add16(bytes, 65535);
    add32(bytes, 0);
    bytes.resize(bytes.size() + data);
    return bytes;
}
inline Bytes udp(std::uint16_t from, std::uint16_t to, const Bytes& data = {}) {
    Bytes bytes;
    add16(bytes, from);
    add16(bytes, to);
    add16(bytes, static_cast<unsigned>(8 + data.size()));
    add16(bytes, 0);
    add(bytes, data);
    return bytes;
}
inline Bytes icmp(std::uint8_t type, std::uint8_t code, std::uint16_t id = 0,
                  const Bytes& data = {}) {
    Bytes bytes;
    add8(bytes, type);
    add8(bytes, code);
    add16(bytes, 0);
    add16(bytes, id);
    add16(bytes, 1);
    add(bytes, data);
    return bytes;
}

// --- IP -----------------------------------------------------------------------------------------

struct IpFields {
    Address source;
    Address destination;
    std::uint8_t protocol = 0;
    std::uint8_t hop_limit = 64;
    bool is_fragment = false;
    std::uint32_t id = 0;
    std::uint16_t offset = 0;
    bool more = false;
    Bytes options;     // IPv4, a multiple of 4
    Bytes extensions;  // IPv6, before the fragment header; the last names `protocol` or 44
    std::uint8_t first_extension = 0;
};

inline Bytes ip(const IpFields& fields, const Bytes& payload) {
    Bytes bytes;
    if (fields.source.family == Family::V4) {
        const auto size = 20 + fields.options.size();
        add8(bytes, static_cast<unsigned>(0x40 | size / 4));
        add8(bytes, 0);
        add16(bytes, static_cast<unsigned>(size + payload.size()));
        add16(bytes, fields.id & 0xffff);
        add16(bytes, fields.offset / 8U | (fields.more ? 0x2000U : 0U));
        add8(bytes, fields.hop_limit);
        add8(bytes, fields.protocol);
        add16(bytes, 0);
        add_address(bytes, fields.source);
        add_address(bytes, fields.destination);
        add(bytes, fields.options);
    } else {
        const auto extra = fields.extensions.size() + (fields.is_fragment ? 8 : 0);
        add32(bytes, 6U << 28);
        add16(bytes, static_cast<unsigned>(extra + payload.size()));
        add8(bytes, !fields.extensions.empty() ? fields.first_extension
                    : fields.is_fragment       ? 44
                                               : fields.protocol);
        add8(bytes, fields.hop_limit);
        add_address(bytes, fields.source);
        add_address(bytes, fields.destination);
        add(bytes, fields.extensions);
        if (fields.is_fragment) {
            add8(bytes, fields.protocol);
            add8(bytes, 0);
            add16(bytes, fields.offset | (fields.more ? 1U : 0U));
            add32(bytes, fields.id);
        }
    }
    add(bytes, payload);
    return bytes;
}

inline Bytes ethernet(const MacAddress& from, const MacAddress& to, std::uint16_t type,
                      const Bytes& payload) {
    Bytes bytes;
    add_mac(bytes, to);
    add_mac(bytes, from);
    add16(bytes, type);
    add(bytes, payload);
    return bytes;
}

inline std::uint16_t ethertype_of(const Bytes& packet) {
    return get8(packet.data()) >> 4 == 4 ? 0x0800 : 0x86dd;
}

// --- the same from text -------------------------------------------------------------------------

// What names stand for in lines such as "tcp C:40000>I:22 S".
using Names = std::map<std::string, std::string, std::less<>>;

// Reads one packet, without its Ethernet header:
//   tcp A:PORT>B:PORT FLAGS [seq N] [ack N]     FLAGS of S A F R P
//   udp A:PORT>B:PORT
//   icmp|icmpv6 A>B TYPE/CODE [id N] [about PACKET]
//   proto N A>B
// each with "frag ID OFFSET +" (more to come) or "frag ID OFFSET -" (the last) at its end: 24 bytes
// of payload from OFFSET on.
class PacketText {
  public:
    PacketText(std::string_view text, const Names& names)
        : words_(std::string(text)), names_(names) {}

    Bytes read() {
        const auto kind = word();
        IpFields fields;
        Bytes payload;
        if (kind == "tcp" || kind == "udp") {
            const auto [from, to] = ends(fields);
            fields.protocol = kind == "tcp" ? protocol::tcp : protocol::udp;
            payload = kind == "tcp" ? read_tcp(from, to) : fake::udp(from, to, Bytes(24));
        } else if (kind == "icmp" || kind == "icmpv6") {
            ends(fields);
            fields.protocol = kind == "icmp" ? protocol::icmp : protocol::icmpv6;
            payload = read_icmp();
        } else if (kind == "proto") {
            fields.protocol = static_cast<std::uint8_t>(std::stoi(word()));
            ends(fields);
            payload.resize(24);
        } else {
            throw std::invalid_argument("no packet: " + kind);
        }
        if (take("frag")) {
            fields.is_fragment = true;
            fields.id = static_cast<std::uint32_t>(std::stoul(word()));
            fields.offset = static_cast<std::uint16_t>(std::stoul(word()));
            fields.more = word() == "+";
            if (fields.offset != 0)
                payload.assign(24, std::byte{0});
            else
                payload.resize(24);
        }
        return ip(fields, payload);
    }

  private:
    std::string word() {
        std::string text;
        if (!(words_ >> text))
            throw std::invalid_argument("packet ends early");
        return text;
    }
    bool take(std::string_view expected) {
        const auto at = words_.tellg();
        std::string text;
        if (words_ >> text && text == expected)
            return true;
        words_.clear();
        words_.seekg(at);
        return false;
    }
    Address resolve(const std::string& name) {
        const auto known = names_.find(name);
        return address(known == names_.end() ? name : known->second);
    }
    struct Ports {
        std::uint16_t from = 0;
        std::uint16_t to = 0;
    };
    std::pair<Address, std::uint16_t> end(const std::string& text) {
        const auto colon = text.find(':');
        const auto port = colon == std::string::npos ? 0 : std::stoi(text.substr(colon + 1));
        return {resolve(text.substr(0, colon)), static_cast<std::uint16_t>(port)};
    }
    Ports ends(IpFields& fields) {
        const auto text = word();
        const auto arrow = text.find('>');
        const auto [source, from] = end(text.substr(0, arrow));
        const auto [destination, to] = end(text.substr(arrow + 1));
        fields.source = source;
        fields.destination = destination;
        return {from, to};
    }
    Bytes read_tcp(std::uint16_t from, std::uint16_t to) {
        TcpFields fields{.flags = 0};
        for (const char c : word())
            fields.flags |= c == 'S'   ? tcp_flag::syn
                            : c == 'A' ? tcp_flag::ack
                            : c == 'F' ? tcp_flag::fin
                            : c == 'R' ? tcp_flag::rst
                                       : 8;
        if (take("seq"))
            fields.sequence = static_cast<std::uint32_t>(std::stoul(word()));
        if (take("ack"))
            fields.acknowledgment = static_cast<std::uint32_t>(std::stoul(word()));
        return fake::tcp(from, to, fields, 4);
    }
    Bytes read_icmp() {
        const auto text = word();
        const auto slash = text.find('/');
        const auto type = static_cast<std::uint8_t>(std::stoi(text.substr(0, slash)));
        const auto code = static_cast<std::uint8_t>(std::stoi(text.substr(slash + 1)));
        std::uint16_t id = 0;
        if (take("id"))
            id = static_cast<std::uint16_t>(std::stoi(word()));
        Bytes data(16);
        if (take("about"))
            data = read();
        return fake::icmp(type, code, id, data);
    }

    std::istringstream words_;
    const Names& names_;
};

}  // namespace masu::net::fake

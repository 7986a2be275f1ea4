// Headers and checksums of Ethernet frames.
#include "devices/net/frame.hpp"

namespace masu::net {
namespace {

constexpr std::size_t ipv4_header_size = 20;
constexpr std::size_t ipv6_header_size = 40;
constexpr std::size_t udp_header_size = 8;
constexpr std::size_t tcp_header_size = 20;
constexpr int max_extension_headers = 8;

std::uint8_t byte_at(std::span<const std::byte> bytes, std::size_t at) {
    return std::to_integer<std::uint8_t>(bytes[at]);
}

// Fills in header_size; false where the transport header is cut off.
bool measure(std::span<const std::byte> bytes, TransportPlace& place) {
    if (place.protocol == protocol_udp) {
        place.header_size = udp_header_size;
    } else if (place.protocol == protocol_tcp) {
        if (place.offset + tcp_header_size > bytes.size())
            return false;
        place.header_size = std::size_t{4} * (byte_at(bytes, place.offset + 12) >> 4);
        if (place.header_size < tcp_header_size)
            return false;
    }
    return place.offset + place.header_size <= bytes.size();
}

std::optional<TransportPlace> find_ipv4(std::span<const std::byte> bytes) {
    constexpr auto at = ethernet_header_size;
    if (bytes.size() < at + ipv4_header_size || byte_at(bytes, at) >> 4 != 4)
        return std::nullopt;
    const auto fragment = get16(&bytes[at + 6]);
    if ((fragment & 0x1fff) != 0)
        return std::nullopt;
    TransportPlace place{.ipv6 = false,
                         .protocol = byte_at(bytes, at + 9),
                         .fragment = (fragment & 0x2000) != 0,
                         .offset = at + std::size_t{4} * (byte_at(bytes, at) & 0xf)};
    if (place.offset < at + ipv4_header_size || !measure(bytes, place))
        return std::nullopt;
    return place;
}

std::optional<TransportPlace> find_ipv6(std::span<const std::byte> bytes) {
    constexpr auto at = ethernet_header_size;
    if (bytes.size() < at + ipv6_header_size || byte_at(bytes, at) >> 4 != 6)
        return std::nullopt;
    TransportPlace place{
        .ipv6 = true, .protocol = byte_at(bytes, at + 6), .offset = at + ipv6_header_size};
    for (int i = 0; i < max_extension_headers; ++i) {
        const bool fragment = place.protocol == 44;
        const bool options = place.protocol == 0 || place.protocol == 43 || place.protocol == 60;
        if (!fragment && !options)
            return measure(bytes, place) ? std::optional(place) : std::nullopt;
        if (place.offset + 8 > bytes.size())
            return std::nullopt;
        if (fragment) {
            if ((get16(&bytes[place.offset + 2]) & 0xfff8) != 0)
                return std::nullopt;
            place.fragment = true;
        }
        const auto size = fragment ? 8 : std::size_t{8} * (1U + byte_at(bytes, place.offset + 1));
        place.protocol = byte_at(bytes, place.offset);
        place.offset += size;
    }
    return std::nullopt;
}

}  // namespace

std::optional<TransportPlace> find_transport(std::span<const std::byte> bytes) noexcept {
    if (bytes.size() < ethernet_header_size)
        return std::nullopt;
    switch (get16(&bytes[12])) {
        case ethertype_ipv4:
            return find_ipv4(bytes);
        case ethertype_ipv6:
            return find_ipv6(bytes);
        default:
            return std::nullopt;
    }
}

std::uint32_t checksum_add(std::uint32_t sum, std::span<const std::byte> bytes) noexcept {
    std::uint64_t total = sum;
    std::size_t at = 0;
    for (; at + 1 < bytes.size(); at += 2)
        total += get16(&bytes[at]);
    if (at < bytes.size())
        total += std::to_integer<std::uint32_t>(bytes[at]) << 8;
    while (total >> 16 != 0)
        total = (total & 0xffff) + (total >> 16);
    return static_cast<std::uint32_t>(total);
}

std::uint16_t checksum_finish(std::uint32_t sum) noexcept {
    while (sum >> 16 != 0)
        sum = (sum & 0xffff) + (sum >> 16);
    return static_cast<std::uint16_t>(~sum);
}

}  // namespace masu::net

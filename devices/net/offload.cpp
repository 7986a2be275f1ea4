// Judging the header a driver puts before its frames (virtio 1.2, 5.1.6.2).
#include "devices/net/offload.hpp"

#include <algorithm>
#include <array>

#include "devices/net/frame.hpp"

namespace masu::net {
namespace {

struct FeatureOfOffload {
    Offloads offload;
    std::uint64_t host;
    std::uint64_t guest;
};
constexpr std::array<FeatureOfOffload, 6> table{{
    {offload::csum, feature::csum, feature::guest_csum},
    {offload::tso4, feature::host_tso4, feature::guest_tso4},
    {offload::tso6, feature::host_tso6, feature::guest_tso6},
    {offload::ecn, feature::host_ecn, feature::guest_ecn},
    {offload::ufo, feature::host_ufo, feature::guest_ufo},
    {offload::uso, feature::host_uso, feature::guest_uso4 | feature::guest_uso6},
}};

constexpr std::uint16_t tcp_checksum_offset = 16;
constexpr std::uint16_t udp_checksum_offset = 6;

std::uint16_t checksum_offset(std::uint8_t protocol) {
    return protocol == protocol_tcp ? tcp_checksum_offset : udp_checksum_offset;
}

struct Segmentation {
    Offloads needs;
    std::uint8_t protocol;
    bool ipv4;
    bool ipv6;
};
std::optional<Segmentation> segmentation(std::uint8_t gso_type) {
    switch (gso_type) {
        case gso_tcpv4:
            return Segmentation{offload::tso4, protocol_tcp, true, false};
        case gso_tcpv6:
            return Segmentation{offload::tso6, protocol_tcp, false, true};
        case gso_udp:
            return Segmentation{offload::ufo, protocol_udp, true, true};
        case gso_udp_l4:
            return Segmentation{offload::uso, protocol_udp, true, true};
        default:
            return std::nullopt;
    }
}

}  // namespace

Offloads consistent(Offloads offloads) noexcept {
    if ((offloads & offload::csum) == 0)
        return 0;
    if ((offloads & (offload::tso4 | offload::tso6)) == 0)
        offloads &= ~offload::ecn;
    return offloads;
}

Offloads host_offloads(std::uint64_t features) noexcept {
    Offloads offloads = 0;
    for (const auto& row : table)
        if ((features & row.host) == row.host)
            offloads |= row.offload;
    return consistent(offloads);
}

Offloads guest_offloads(std::uint64_t features) noexcept {
    Offloads offloads = 0;
    for (const auto& row : table)
        if ((features & row.guest) == row.guest)
            offloads |= row.offload;
    return consistent(offloads);
}

std::uint64_t host_features(Offloads offloads) noexcept {
    std::uint64_t features = 0;
    for (const auto& row : table)
        if ((offloads & row.offload) != 0)
            features |= row.host;
    return features;
}

std::uint64_t guest_features(Offloads offloads) noexcept {
    std::uint64_t features = 0;
    for (const auto& row : table)
        if ((offloads & row.offload) != 0)
            features |= row.guest;
    return features;
}

const char* to_string(OffloadFault fault) noexcept {
    switch (fault) {
        case OffloadFault::NotNegotiated:
            return "an offload that was not negotiated";
        case OffloadFault::NoChecksum:
            return "segmentation without a checksum to fill in";
        case OffloadFault::NotThatPacket:
            return "a segmentation type that is not the packet's";
        case OffloadFault::BadSize:
            return "a segment size of 0, or a checksum outside the frame";
    }
    return "an unknown offload fault";
}

std::expected<JudgedHeader, OffloadFault> judge_header(const NetHeader& header,
                                                       std::span<const std::byte> bytes,
                                                       std::size_t frame_size,
                                                       Offloads negotiated) noexcept {
    JudgedHeader judged;
    const auto kind = static_cast<std::uint8_t>(header.gso_type & ~gso_ecn);
    const bool wants_checksum = (header.flags & hdr_f_needs_csum) != 0;
    if (!wants_checksum)
        return kind == gso_none ? std::expected<JudgedHeader, OffloadFault>(judged)
                                : std::unexpected(OffloadFault::NoChecksum);
    if ((negotiated & offload::csum) == 0)
        return std::unexpected(OffloadFault::NotNegotiated);
    const std::size_t field = std::size_t{header.csum_start} + header.csum_offset;
    if (header.csum_start < ethernet_header_size || field + 2 > frame_size)
        return std::unexpected(OffloadFault::BadSize);
    judged.header.flags = hdr_f_needs_csum;
    judged.header.csum_start = header.csum_start;
    judged.header.csum_offset = header.csum_offset;

    const auto place = find_transport(bytes);
    const bool own_checksum = place && place->header_size != 0 && !place->fragment &&
                              place->offset == header.csum_start &&
                              header.csum_offset == checksum_offset(place->protocol);
    if (kind == gso_none) {
        judged.complete_checksum_first = !own_checksum;
        return judged;
    }
    const auto wanted = segmentation(kind);
    if (!wanted || (negotiated & wanted->needs) == 0)
        return std::unexpected(OffloadFault::NotNegotiated);
    const bool ecn = (header.gso_type & gso_ecn) != 0;
    if (ecn && (negotiated & offload::ecn) == 0)
        return std::unexpected(OffloadFault::NotNegotiated);
    if (!own_checksum || place->protocol != wanted->protocol ||
        !(place->ipv6 ? wanted->ipv6 : wanted->ipv4))
        return std::unexpected(OffloadFault::NotThatPacket);
    const auto headers = place->offset + place->header_size;
    if (header.gso_size == 0 || headers > frame_size)
        return std::unexpected(OffloadFault::BadSize);
    judged.header.gso_type = header.gso_type;
    judged.header.gso_size = header.gso_size;
    judged.header.hdr_len = static_cast<std::uint16_t>(headers);
    return judged;
}

void complete_checksum(const NetHeader& header, std::span<std::byte> frame) noexcept {
    const std::size_t field = std::size_t{header.csum_start} + header.csum_offset;
    if (field + 2 > frame.size())
        return;
    // The field holds the sum of the pseudo header, and is summed with the rest.
    const auto sum = checksum_finish(checksum_add(0, frame.subspan(header.csum_start)));
    put16(&frame[field], sum == 0 ? 0xffff : sum);  // UDP: 0 means none
}

}  // namespace masu::net

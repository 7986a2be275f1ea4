// The virtio-net header and feature bits (virtio 1.2, 5.1.3 and 5.1.6).
#pragma once

#include <cstdint>

namespace masu::net {

// struct virtio_net_hdr: what goes before each frame. Little-endian, as everything in virtio 1.
struct NetHeader {
    std::uint8_t flags = 0;
    std::uint8_t gso_type = 0;
    std::uint16_t hdr_len = 0;
    std::uint16_t gso_size = 0;
    std::uint16_t csum_start = 0;
    std::uint16_t csum_offset = 0;
    std::uint16_t num_buffers = 0;
    bool operator==(const NetHeader&) const = default;
};
static_assert(sizeof(NetHeader) == 12);

inline constexpr std::uint8_t hdr_f_needs_csum = 1;
inline constexpr std::uint8_t hdr_f_data_valid = 2;

inline constexpr std::uint8_t gso_none = 0;
inline constexpr std::uint8_t gso_tcpv4 = 1;
inline constexpr std::uint8_t gso_udp = 3;  // UFO: one datagram, to be fragmented
inline constexpr std::uint8_t gso_tcpv6 = 4;
inline constexpr std::uint8_t gso_udp_l4 = 5;  // USO: several datagrams
inline constexpr std::uint8_t gso_ecn = 0x80;

namespace feature {
inline constexpr std::uint64_t csum = 1ULL << 0;
inline constexpr std::uint64_t guest_csum = 1ULL << 1;
inline constexpr std::uint64_t ctrl_guest_offloads = 1ULL << 2;
inline constexpr std::uint64_t mtu = 1ULL << 3;
inline constexpr std::uint64_t mac = 1ULL << 5;
inline constexpr std::uint64_t guest_tso4 = 1ULL << 7;
inline constexpr std::uint64_t guest_tso6 = 1ULL << 8;
inline constexpr std::uint64_t guest_ecn = 1ULL << 9;
inline constexpr std::uint64_t guest_ufo = 1ULL << 10;
inline constexpr std::uint64_t host_tso4 = 1ULL << 11;
inline constexpr std::uint64_t host_tso6 = 1ULL << 12;
inline constexpr std::uint64_t host_ecn = 1ULL << 13;
inline constexpr std::uint64_t host_ufo = 1ULL << 14;
inline constexpr std::uint64_t mrg_rxbuf = 1ULL << 15;
inline constexpr std::uint64_t status = 1ULL << 16;
inline constexpr std::uint64_t ctrl_vq = 1ULL << 17;
inline constexpr std::uint64_t guest_announce = 1ULL << 21;
inline constexpr std::uint64_t mq = 1ULL << 22;
inline constexpr std::uint64_t guest_uso4 = 1ULL << 54;
inline constexpr std::uint64_t guest_uso6 = 1ULL << 55;
inline constexpr std::uint64_t host_uso = 1ULL << 56;
}  // namespace feature

// What VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET may name (5.1.6.5.6).
inline constexpr std::uint64_t all_guest_offloads =
    feature::guest_csum | feature::guest_tso4 | feature::guest_tso6 | feature::guest_ecn |
    feature::guest_ufo | feature::guest_uso4 | feature::guest_uso6;

}  // namespace masu::net

// Packets of the socket device as they lie in the queues (virtio 1.2, 5.10.6).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace masu::vsock {

inline constexpr std::uint64_t host_cid = 2;
inline constexpr std::uint32_t first_guest_cid = 3;
inline constexpr std::uint32_t any_cid = 0xffff'ffff;   // VMADDR_CID_ANY, nobody's own
inline constexpr std::uint32_t any_port = 0xffff'ffff;  // VMADDR_PORT_ANY

// struct virtio_vsock_hdr; `len` bytes of payload follow it. On the wire it has no padding at its
// end: see wire_bytes().
struct Header {
    std::uint64_t src_cid = 0;
    std::uint64_t dst_cid = 0;
    std::uint32_t src_port = 0;
    std::uint32_t dst_port = 0;
    std::uint32_t len = 0;
    std::uint16_t type = 0;
    std::uint16_t op = 0;
    std::uint32_t flags = 0;
    std::uint32_t buf_alloc = 0;  // the sender's buffer for this connection, bytes
    std::uint32_t fwd_cnt = 0;    // what its user has taken out of it so far, modulo 2^32
};
inline constexpr std::size_t header_size = 44;
static_assert(offsetof(Header, src_port) == 16 && offsetof(Header, type) == 28);
static_assert(offsetof(Header, fwd_cnt) + sizeof(Header::fwd_cnt) == header_size);

[[nodiscard]] inline std::span<const std::byte> wire_bytes(const Header& header) noexcept {
    return std::as_bytes(std::span(&header, 1)).first(header_size);
}
[[nodiscard]] inline std::span<std::byte> wire_bytes(Header& header) noexcept {
    return std::as_writable_bytes(std::span(&header, 1)).first(header_size);
}

inline constexpr std::uint16_t type_stream = 1;  // VIRTIO_VSOCK_TYPE_STREAM

namespace op {  // VIRTIO_VSOCK_OP_*
inline constexpr std::uint16_t request = 1;
inline constexpr std::uint16_t response = 2;
inline constexpr std::uint16_t rst = 3;
inline constexpr std::uint16_t shutdown = 4;
inline constexpr std::uint16_t rw = 5;
inline constexpr std::uint16_t credit_update = 6;
inline constexpr std::uint16_t credit_request = 7;
}  // namespace op

namespace shutdown {  // flags of op::shutdown: what its sender does no more
inline constexpr std::uint32_t receive = 1;
inline constexpr std::uint32_t send = 2;
inline constexpr std::uint32_t both = receive | send;
}  // namespace shutdown

// struct virtio_vsock_event (5.10.6.7).
inline constexpr std::uint32_t event_transport_reset = 0;

namespace feature {
inline constexpr std::uint64_t stream = 1ULL << 0;  // VIRTIO_VSOCK_F_STREAM
}  // namespace feature

}  // namespace masu::vsock

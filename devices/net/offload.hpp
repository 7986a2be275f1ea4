// What a driver may ask the device to finish for it (checksum, segmentation), judged per frame.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>

#include "devices/net/net_header.hpp"

namespace masu::net {

// Work one side leaves to the other, as bits.
using Offloads = std::uint32_t;
namespace offload {
inline constexpr Offloads csum = 1;
inline constexpr Offloads tso4 = 2;
inline constexpr Offloads tso6 = 4;
inline constexpr Offloads ecn = 8;
inline constexpr Offloads ufo = 16;
inline constexpr Offloads uso = 32;
}  // namespace offload

// Without what needs something that is missing (5.1.3.1): segmentation needs the checksum, ECN
// needs TSO.
[[nodiscard]] Offloads consistent(Offloads offloads) noexcept;

// The negotiated feature bits of either direction.
[[nodiscard]] Offloads host_offloads(std::uint64_t features) noexcept;   // for frames of the driver
[[nodiscard]] Offloads guest_offloads(std::uint64_t features) noexcept;  // for frames to the driver
[[nodiscard]] std::uint64_t host_features(Offloads offloads) noexcept;
[[nodiscard]] std::uint64_t guest_features(Offloads offloads) noexcept;

enum class OffloadFault : std::uint8_t {
    NotNegotiated,  // asks for what was not negotiated, or is unknown
    NoChecksum,     // segmentation without NEEDS_CSUM (5.1.6.2.1)
    NotThatPacket,  // gso_type says one thing, the packet is another
    BadSize,        // gso_size 0, or checksum position outside the frame
};
[[nodiscard]] const char* to_string(OffloadFault fault) noexcept;

struct JudgedHeader {
    NetHeader header;  // rebuilt from what was checked; nothing of the driver's is passed on as is
    // The checksum to fill in is not that of the frame's own TCP or UDP header (say, one inside a
    // tunnel). It must be completed before the frame is judged, since otherwise a checksum could
    // land on a field that a rule was about.
    bool complete_checksum_first = false;
};

// `bytes` is the private copy of the frame's beginning, all headers included; `frame_size` the
// whole.
[[nodiscard]] std::expected<JudgedHeader, OffloadFault> judge_header(
    const NetHeader& header, std::span<const std::byte> bytes, std::size_t frame_size,
    Offloads negotiated) noexcept;

// Does in place what NEEDS_CSUM asks for. The header was judged against this frame.
void complete_checksum(const NetHeader& header, std::span<std::byte> frame) noexcept;

}  // namespace masu::net

// A frame's headers as a value.
#pragma once

#include <optional>
#include <span>

#include "devices/net/firewall/packet.hpp"

namespace masu::net {

// Nothing for what is no proper packet. `length`: of the whole frame, where `bytes` is only its
// beginning.
[[nodiscard]] inline std::optional<Packet> read_packet(std::span<const std::byte> bytes,
                                                       std::size_t length) noexcept {
    Packet packet;
    if (parse_packet({bytes, static_cast<std::uint32_t>(length)}, packet))
        return std::nullopt;
    return packet;
}
[[nodiscard]] inline std::optional<Packet> read_packet(std::span<const std::byte> frame) noexcept {
    return read_packet(frame, frame.size());
}

}  // namespace masu::net

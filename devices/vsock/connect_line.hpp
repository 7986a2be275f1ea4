// The line with which a program on the host asks for a port of the guest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace masu::vsock {

inline constexpr std::size_t max_connect_line = 32;  // with its newline

struct ConnectLine {
    enum class State : std::uint8_t { Incomplete, Bad, Complete };
    State state = State::Incomplete;
    std::uint32_t port = 0;
    std::size_t size = 0;  // with the newline; what follows belongs to the connection
};

// "CONNECT <port>\n", the word in any case, the port in decimal digits. `text` is what has come so
// far, max_connect_line bytes of it at most.
[[nodiscard]] ConnectLine parse_connect_line(std::string_view text) noexcept;

}  // namespace masu::vsock

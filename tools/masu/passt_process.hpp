// Networks without privileges: passt, a process of its own beside the monitor.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace masu::cli {

// -p [ADDRESS:]HOST:GUEST[/tcp|/udp]
struct PublishedPort {
    std::string host_address;  // empty: all of this machine's
    std::uint16_t host = 0;
    std::uint16_t guest = 0;
    bool udp = false;
    bool operator==(const PublishedPort&) const = default;
};
[[nodiscard]] Result<PublishedPort> parse_published_port(std::string_view text);
[[nodiscard]] std::string to_string(const PublishedPort& port);

// The guest's side of every such network: each VM has one to itself, so all may look the same.
namespace user_network {
inline constexpr const char* address = "172.31.0.10";
inline constexpr const char* prefix_length = "20";
inline constexpr const char* gateway = "172.31.0.1";
inline constexpr const char* dns = "172.31.0.2";  // the subnet's base + 2, as in a VPC
inline constexpr unsigned mtu = 65520;
}  // namespace user_network

// $MASU_PASST (set and empty: none), or passt on PATH; nothing where there is none.
[[nodiscard]] std::optional<std::string> find_passt();

// Starts passt and returns the monitor's end of the socket to it. passt ends when nobody holds that
// end any more. Its messages go to `log`.
[[nodiscard]] Result<Fd> start_passt(const std::string& program,
                                     const std::vector<PublishedPort>& ports,
                                     const std::string& log);

}  // namespace masu::cli

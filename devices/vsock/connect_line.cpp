#include "devices/vsock/connect_line.hpp"

#include <algorithm>
#include <charconv>

#include "devices/vsock/packet.hpp"

namespace masu::vsock {

ConnectLine parse_connect_line(std::string_view text) noexcept {
    using enum ConnectLine::State;
    constexpr std::string_view word = "connect ";
    const auto newline = text.substr(0, max_connect_line).find('\n');
    if (newline == std::string_view::npos)
        return {.state = text.size() < max_connect_line ? Incomplete : Bad};
    const auto line = text.substr(0, newline);
    const auto same = [](char a, char b) {
        return a == b || (a >= 'A' && a <= 'Z' && a - 'A' + 'a' == b);
    };
    if (line.size() <= word.size() || !std::ranges::equal(line.substr(0, word.size()), word, same))
        return {.state = Bad};
    const auto digits = line.substr(word.size());
    std::uint32_t port = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (error != std::errc() || end != digits.data() + digits.size() || port == any_port)
        return {.state = Bad};
    return {.state = Complete, .port = port, .size = newline + 1};
}

}  // namespace masu::vsock

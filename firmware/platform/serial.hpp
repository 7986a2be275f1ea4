// COM1, polled.
#pragma once

#include <cstdint>
#include <optional>

namespace masu::firmware::serial {

// Once, before anything else here.
void init(std::uint16_t port) noexcept;
void write(char c) noexcept;
[[nodiscard]] bool has_input() noexcept;
[[nodiscard]] std::optional<std::uint8_t> read() noexcept;

}  // namespace masu::firmware::serial

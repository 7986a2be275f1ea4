// Turns what a terminal sends into EFI keys: ECMA-48 and VT sequences, UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "firmware/efi/protocols.hpp"

namespace masu::firmware {

// 12.3.4
namespace scan {
inline constexpr std::uint16_t up = 1, down = 2, right = 3, left = 4, home = 5, end = 6,
                               insert = 7, del = 8, page_up = 9, page_down = 10, f1 = 11,
                               escape = 0x17;
}  // namespace scan

// A pure machine: bytes in, keys out. A lone escape is a key only once no more bytes follow.
class KeyDecoder {
  public:
    [[nodiscard]] std::optional<efi::InputKey> feed(std::uint8_t byte) noexcept;
    // No byte came for a while.
    [[nodiscard]] std::optional<efi::InputKey> idle() noexcept;
    [[nodiscard]] bool in_sequence() const noexcept { return state_ != State::Plain; }

  private:
    enum class State : std::uint8_t { Plain, Escape, Csi, Ss3, Utf8 };
    [[nodiscard]] std::optional<efi::InputKey> plain(std::uint8_t byte) noexcept;
    [[nodiscard]] std::optional<efi::InputKey> csi(std::uint8_t byte) noexcept;

    State state_ = State::Plain;
    std::uint32_t value_ = 0;  // the sequence's first number, or the character so far
    unsigned left_ = 0;        // bytes of a UTF-8 character still to come
    bool first_ = true;        // the first number is not over
};

}  // namespace masu::firmware

#include "firmware/protocols/key_decoder.hpp"

namespace masu::firmware {

using efi::InputKey;

namespace {

constexpr std::uint8_t escape_byte = 0x1b;

std::optional<InputKey> scan_key(std::uint16_t code) noexcept {
    if (code == 0)
        return std::nullopt;
    return InputKey{code, 0};
}

// The final letter of ESC [ x and ESC O x.
std::uint16_t letter_code(std::uint8_t letter) noexcept {
    switch (letter) {
        case 'A':
            return scan::up;
        case 'B':
            return scan::down;
        case 'C':
            return scan::right;
        case 'D':
            return scan::left;
        case 'H':
            return scan::home;
        case 'F':
            return scan::end;
        case 'P':
        case 'Q':
        case 'R':
        case 'S':
            return static_cast<std::uint16_t>(scan::f1 + letter - 'P');
        default:
            return 0;
    }
}

// ESC [ n ~
std::uint16_t number_code(std::uint32_t number) noexcept {
    constexpr std::uint16_t codes[] = {0,         scan::home, scan::insert,  scan::del, scan::end,
                                       scan::page_up, scan::page_down, scan::home, scan::end};
    if (number < sizeof codes / sizeof codes[0])
        return codes[number];
    if (number >= 11 && number <= 15)
        return static_cast<std::uint16_t>(scan::f1 + number - 11);
    if (number >= 17 && number <= 21)
        return static_cast<std::uint16_t>(scan::f1 + 5 + number - 17);
    if (number == 23 || number == 24)
        return static_cast<std::uint16_t>(scan::f1 + 10 + number - 23);
    return 0;
}

}  // namespace

std::optional<InputKey> KeyDecoder::plain(std::uint8_t byte) noexcept {
    if (byte == escape_byte) {
        state_ = State::Escape;
        return std::nullopt;
    }
    if (byte == 0)
        return std::nullopt;
    if (byte == 0x7f)
        return InputKey{0, u'\b'};
    if (byte == '\n')
        return InputKey{0, u'\r'};
    if (byte < 0x80)
        return InputKey{0, byte};
    if (byte >= 0xc2 && byte < 0xf0) {
        state_ = State::Utf8;
        left_ = byte < 0xe0 ? 1 : 2;
        value_ = byte < 0xe0 ? byte & 0x1fU : byte & 0xfU;
    }
    return std::nullopt;
}

std::optional<InputKey> KeyDecoder::csi(std::uint8_t byte) noexcept {
    if (byte >= '0' && byte <= '9') {
        if (first_ && value_ < 1000)
            value_ = value_ * 10 + byte - '0';
        return std::nullopt;
    }
    if (byte == ';') {
        first_ = false;
        return std::nullopt;
    }
    state_ = State::Plain;
    return scan_key(byte == '~' ? number_code(value_) : letter_code(byte));
}

std::optional<InputKey> KeyDecoder::feed(std::uint8_t byte) noexcept {
    switch (state_) {
        case State::Plain:
            return plain(byte);
        case State::Escape:
            if (byte == '[' || byte == 'O') {
                state_ = byte == '[' ? State::Csi : State::Ss3;
                value_ = 0;
                first_ = true;
                return std::nullopt;
            }
            // Alt and a key, or Escape and then a key typed fast: the key counts.
            state_ = State::Plain;
            return plain(byte);
        case State::Csi:
            return csi(byte);
        case State::Ss3:
            state_ = State::Plain;
            return scan_key(letter_code(byte));
        case State::Utf8:
            if ((byte & 0xc0) != 0x80) {
                state_ = State::Plain;
                return plain(byte);
            }
            value_ = value_ << 6 | (byte & 0x3fU);
            if (--left_ != 0)
                return std::nullopt;
            state_ = State::Plain;
            return InputKey{0, static_cast<char16_t>(value_)};
    }
    return std::nullopt;
}

std::optional<InputKey> KeyDecoder::idle() noexcept {
    const bool lone = state_ == State::Escape;
    state_ = State::Plain;
    return lone ? scan_key(scan::escape) : std::nullopt;
}

}  // namespace masu::firmware

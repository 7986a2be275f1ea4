#include "firmware/platform/say.hpp"

#include "firmware/platform/serial.hpp"

namespace masu::firmware {

void put(std::string_view text) noexcept {
    for (const char c : text)
        serial::write(c);
}

void put(char16_t c) noexcept {
    if (c < 0x80) {
        serial::write(static_cast<char>(c));
    } else if (c < 0x800) {
        serial::write(static_cast<char>(0xc0 | c >> 6));
        serial::write(static_cast<char>(0x80 | (c & 0x3f)));
    } else {
        serial::write(static_cast<char>(0xe0 | c >> 12));
        serial::write(static_cast<char>(0x80 | (c >> 6 & 0x3f)));
        serial::write(static_cast<char>(0x80 | (c & 0x3f)));
    }
}

void put(std::uint64_t number) noexcept {
    char digits[20];
    std::size_t at = sizeof digits;
    do {
        digits[--at] = static_cast<char>('0' + number % 10);
        number /= 10;
    } while (number != 0);
    put(std::string_view(digits + at, sizeof digits - at));
}

void put(Hex number) noexcept {
    put(std::string_view("0x"));
    bool leading = true;
    for (int shift = 60; shift >= 0; shift -= 4) {
        const auto digit = number.value >> shift & 0xf;
        leading = leading && digit == 0 && shift != 0;
        if (!leading)
            serial::write("0123456789abcdef"[digit]);
    }
}

void put(Utf16 text) noexcept {
    constexpr int longest = 256;
    for (int i = 0; text.text != nullptr && text.text[i] != 0 && i < longest; ++i)
        put(text.text[i] < 0x20 || text.text[i] == 0x7f ? u'?' : text.text[i]);
}

void put(Untrusted text) noexcept {
    for (const char c : text.text)
        serial::write(c < 0x20 || c == 0x7f ? '?' : c);
}

}  // namespace masu::firmware

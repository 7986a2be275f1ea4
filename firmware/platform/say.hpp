// The firmware's own lines on the console: "masu: ...", one event a line.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace masu::firmware {

struct Hex {
    std::uint64_t value;
};
struct Utf16 {
    const char16_t* text;  // zero-terminated
};

void put(std::string_view text) noexcept;
void put(char16_t c) noexcept;  // as UTF-8
void put(std::uint64_t number) noexcept;
void put(Hex number) noexcept;
void put(Utf16 text) noexcept;

// What comes from a disk goes through put_untrusted: control characters become '?'.
struct Untrusted {
    std::string_view text;
};
void put(Untrusted text) noexcept;

template <class... Parts>
void say(const Parts&... parts) noexcept {
    put(std::string_view("masu: "));
    (put(parts), ...);
    put(std::string_view("\r\n"));
}

}  // namespace masu::firmware

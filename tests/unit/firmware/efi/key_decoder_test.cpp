#include <doctest/doctest.h>

#include <string_view>
#include <vector>

#include "firmware/protocols/key_decoder.hpp"

using namespace masu::firmware;

namespace {

// Each key as its scan code in the high half and its character in the low one.
std::vector<std::uint32_t> keys(std::string_view typed, bool idle = true) {
    KeyDecoder decoder;
    std::vector<std::uint32_t> result;
    const auto add = [&](const std::optional<efi::InputKey>& key) {
        if (key)
            result.push_back(static_cast<std::uint32_t>(key->scan_code) << 16 | key->unicode);
    };
    for (const char c : typed)
        add(decoder.feed(static_cast<std::uint8_t>(c)));
    if (idle)
        add(decoder.idle());
    return result;
}

constexpr std::uint32_t scan_of(std::uint16_t code) {
    return std::uint32_t{code} << 16;
}

}  // namespace

TEST_CASE("plain characters and the keys of a terminal's control characters") {
    CHECK(keys("aZ ") == std::vector<std::uint32_t>{'a', 'Z', ' '});
    CHECK(keys("\r\n\x7f\b\t") == std::vector<std::uint32_t>{'\r', '\r', '\b', '\b', '\t'});
    CHECK(keys("\x18\x01") == std::vector<std::uint32_t>{0x18, 1});
}

TEST_CASE("escape sequences are keys") {
    CHECK(keys("\x1b[A\x1b[B\x1bOC\x1b[D") ==
          std::vector{scan_of(scan::up), scan_of(scan::down), scan_of(scan::right),
                      scan_of(scan::left)});
    CHECK(keys("\x1b[1~\x1b[4~\x1b[3~\x1b[5~\x1b[6~\x1b[2~") ==
          std::vector{scan_of(scan::home), scan_of(scan::end), scan_of(scan::del),
                      scan_of(scan::page_up), scan_of(scan::page_down), scan_of(scan::insert)});
    CHECK(keys("\x1bOP\x1b[15~\x1b[21~\x1b[24~") ==
          std::vector{scan_of(scan::f1), scan_of(scan::f1 + 4), scan_of(scan::f1 + 9),
                      scan_of(scan::f1 + 11)});
    CHECK(keys("\x1b[1;5A") == std::vector{scan_of(scan::up)});
}

TEST_CASE("a lone escape is a key when nothing follows") {
    CHECK(keys("\x1b") == std::vector{scan_of(scan::escape)});
    CHECK(keys("\x1b", false).empty());
    CHECK(keys("\x1bx") == std::vector<std::uint32_t>{'x'});
    CHECK(keys("\x1b[") == std::vector<std::uint32_t>{});
}

TEST_CASE("UTF-8 is one key a character, and broken UTF-8 none") {
    CHECK(keys("\xc3\xa9\xe2\x82\xac") == std::vector<std::uint32_t>{0xe9, 0x20ac});
    CHECK(keys("\xc3" "a") == std::vector<std::uint32_t>{'a'});
    CHECK(keys("\xff\x80z") == std::vector<std::uint32_t>{'z'});
}

TEST_CASE("unknown sequences vanish whole") {
    CHECK(keys("\x1b[99999999999~a") == std::vector<std::uint32_t>{'a'});
    CHECK(keys("\x1b[Zb") == std::vector<std::uint32_t>{'b'});
}

#include <doctest/doctest.h>

#include <string>

#include "firmware/protocols/file_names.hpp"

using namespace masu::firmware;

namespace {

std::string resolve(std::string_view from, const char16_t* name) {
    char to[max_path];
    const auto path = resolve_path(from, name, to);
    return path ? std::string(*path) : "none";
}

std::u16string wide(std::string_view text) {
    char16_t to[32];
    return {to, to_utf16(text, to)};
}

}  // namespace

TEST_CASE("names are seen from where they are opened") {
    CHECK(resolve("", u"EFI\\BOOT") == "/EFI/BOOT");
    CHECK(resolve("/EFI", u"BOOT\\X.EFI") == "/EFI/BOOT/X.EFI");
    CHECK(resolve("/EFI", u"\\loader\\loader.conf") == "/loader/loader.conf");
    CHECK(resolve("/a/b", u"..\\c\\.\\d") == "/a/c/d");
    CHECK(resolve("/a/b", u".") == "/a/b");
    CHECK(resolve("", u"\\") == "");
    CHECK(resolve("/a", u"\\\\b\\\\c\\") == "/b/c");
    CHECK(resolve("/a", u"..") == "");
}

TEST_CASE("nothing is above the root, and nothing longer than its room") {
    CHECK(resolve("", u"..") == "none");
    CHECK(resolve("/a", u"..\\..\\b") == "none");
    const std::u16string name(max_path, u'x');
    CHECK(resolve("", name.c_str()) == "none");
    const std::string deep(max_path - 4, 'd');
    CHECK(resolve(deep, u"xyz") == "none");
}

TEST_CASE("UTF-16 and UTF-8") {
    CHECK(resolve("", u"\u00e9\u20ac") == "/\xc3\xa9\xe2\x82\xac");
    const char16_t pair[] = {0xd83d, 0xde00, 0};
    CHECK(resolve("", pair) == "/\xf0\x9f\x98\x80");
    CHECK(wide("a\xc3\xa9\xe2\x82\xac") == u"a\u00e9\u20ac");
    CHECK(wide("\xf0\x9f\x98\x80") == std::u16string(pair));
    CHECK(wide("\xc3") == u"\ufffd");
    CHECK(wide("\xff" "b") == u"\ufffd" u"b");
    char16_t tight[3];
    CHECK(to_utf16("abcdef", tight) == 2);
}

TEST_CASE("days are dates") {
    const auto date = [](std::uint64_t days) {
        const auto d = civil_from_days(days);
        return std::to_string(d.year) + "-" + std::to_string(d.month) + "-" + std::to_string(d.day);
    };
    CHECK(date(0) == "1970-1-1");
    CHECK(date(58) == "1970-2-28");
    CHECK(date(59) == "1970-3-1");
    CHECK(date(11016) == "2000-2-29");
    CHECK(date(20782) == "2026-11-25");
    CHECK(date(~std::uint64_t{0}) == "9999-12-31");
}

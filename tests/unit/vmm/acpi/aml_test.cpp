#include <doctest/doctest.h>

#include <string>

#include "vmm/acpi/aml.hpp"

using namespace masu::acpi;
using namespace masu::acpi::aml;

namespace {

std::string hex(const Bytes& bytes) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    for (const auto byte : bytes) {
        const auto value = std::to_integer<unsigned>(byte);
        text += {digits[value >> 4], digits[value & 0xf]};
    }
    return text;
}

// What an interpreter reads (ACPI 6.5, 20.2.4).
std::size_t decode_package_length(const Bytes& bytes) {
    const auto lead = std::to_integer<std::size_t>(bytes.at(0));
    const auto following = lead >> 6;
    if (following == 0)
        return lead & 0x3f;
    std::size_t value = lead & 0x0f;
    for (std::size_t i = 0; i < following; ++i)
        value |= std::to_integer<std::size_t>(bytes.at(1 + i)) << (4 + 8 * i);
    return value;
}

}  // namespace

TEST_CASE("aml: a package length counts itself, at every size where it grows") {
    CHECK(hex(package_length(0)) == "01");
    CHECK(hex(package_length(0x3e)) == "3f");
    CHECK(hex(package_length(0x3f)) == "4104");
    CHECK(hex(package_length(0xffd)) == "4fff");
    CHECK(hex(package_length(0xffe)) == "810001");
    CHECK(hex(package_length(0xf'fffc)) == "8fffff");
    CHECK(hex(package_length(0xf'fffd)) == "c1000001");
    for (const std::size_t content : {0UL, 1UL, 0x3dUL, 0x3eUL, 0x3fUL, 0x40UL, 0xffcUL, 0xffdUL,
                                      0xffeUL, 0x1000UL, 0xf'fffcUL, 0xf'fffdUL, 0xfff'fffbUL}) {
        const auto encoded = package_length(content);
        CHECK(decode_package_length(encoded) == content + encoded.size());
    }
}

TEST_CASE("aml: names are padded and prefixed") {
    CHECK(hex(path("_SB")) == "5f53425f");
    CHECK(hex(path("\\_S5")) == "5c5f53355f");
    CHECK(hex(path("^X")) == "5e585f5f5f");
    CHECK(hex(path("\\_SB.PWRB")) == "5c2e5f53425f50575242");
    CHECK(hex(path("A.B.C")) == "2f03415f5f5f425f5f5f435f5f5f");
    CHECK(hex(path("\\")) == "5c00");
}

TEST_CASE("aml: an integer takes the shortest form") {
    CHECK(hex(integer(0)) == "00");
    CHECK(hex(integer(1)) == "01");
    CHECK(hex(integer(2)) == "0a02");
    CHECK(hex(integer(0xff)) == "0aff");
    CHECK(hex(integer(0x100)) == "0b0001");
    CHECK(hex(integer(0xffff)) == "0bffff");
    CHECK(hex(integer(0x1'0000)) == "0c00000100");
    CHECK(hex(integer(0xffff'ffff)) == "0cffffffff");
    CHECK(hex(integer(0x1'0000'0000)) == "0e0000000001000000");
}

TEST_CASE("aml: identifiers are packed as the specification packs them") {
    CHECK(hex(eisa_id("PNP0A08")) == "0c41d00a08");
    CHECK(hex(eisa_id("PNP0501")) == "0c41d00501");
    CHECK(hex(uuid("33db4d5b-1ff7-401c-9657-7441c03dd766")) ==
          "11130a105b4ddb33f71f1c4096577441c03dd766");
    CHECK(hex(string("AB")) == "0d414200");
}

TEST_CASE("aml: resource descriptors") {
    CHECK(hex(resource_template({})) == "11050a027900");
    CHECK(hex(memory32_fixed(0xe000'0000, 0x10'0000)) == "86090001000000e000001000");
    CHECK(hex(io_ports(0x3f8, 8)) == "4701f803f8030108");
    CHECK(hex(edge_interrupt(4)) == "890600030104000000");
    CHECK(hex(edge_interrupt(10, Sharing::Shared)) == "8906000b010a000000");
    CHECK(hex(bus_numbers(0, 0)) == "880d00020c0000000000000000000100");
    CHECK(hex(memory32_window(0xd000'0000, 0xdfff'ffff)) ==
          "871700000c0100000000000000d0ffffffdf0000000000000010");
    CHECK(hex(memory64_window(0x10'0000'0000, 0x1f'ffff'ffff)) ==
          "8a2b00000c01000000000000000000000000100000"
          "00ffffffff1f00000000000000000000000000000010000000");
}

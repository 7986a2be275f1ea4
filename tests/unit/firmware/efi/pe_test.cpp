#include <doctest/doctest.h>

#include <string>

#include "firmware/bytes.hpp"
#include "firmware/pe.hpp"
#include "tests/unit/firmware/efi/fake_pe.hpp"

using namespace masu::firmware;
using masu::firmware::test::FakePe;

namespace {

std::string reason(const FakePe& file) {
    const auto image = pe::parse(file.bytes);
    return image ? "" : image.error().reason;
}

}  // namespace

TEST_CASE("a sound image is laid out and relocated") {
    const FakePe file;
    const auto image = pe::parse(file.bytes);
    REQUIRE(image);
    CHECK(image->size == 0x3000);
    CHECK(image->entry == 0x1000);
    std::vector<std::byte> memory(image->size, std::byte{0xee});
    constexpr std::uint64_t address = 0x7654'3000;
    REQUIRE(pe::load(*image, file.bytes, memory, address));
    CHECK(load_le<std::uint8_t>(memory, 0x1000) == 0xc3);
    CHECK(load_le<std::uint64_t>(memory, 0x1008) == address + 0x1234);
    CHECK(load_le<std::uint64_t>(memory, 0x1200) == 0);  // behind the section
    CHECK(load_le<std::uint16_t>(memory, 0) == 0x5a4d);
}

TEST_CASE("at its own address nothing is relocated") {
    const FakePe file;
    const auto image = pe::parse(file.bytes);
    REQUIRE(image);
    std::vector<std::byte> memory(image->size);
    REQUIRE(pe::load(*image, file.bytes, memory, FakePe::base));
    CHECK(load_le<std::uint64_t>(memory, 0x1008) == FakePe::base + 0x1234);
}

TEST_CASE("an image without relocations runs at its own address only") {
    FakePe file;
    file.set<std::uint16_t>(FakePe::coff + 18, 1);
    const auto image = pe::parse(file.bytes);
    REQUIRE(image);
    std::vector<std::byte> memory(image->size);
    CHECK(pe::load(*image, file.bytes, memory, FakePe::base));
    const auto moved = pe::load(*image, file.bytes, memory, FakePe::base + 0x1000);
    REQUIRE_FALSE(moved);
    CHECK(moved.error().code == ErrorCode::Unsupported);
}

TEST_CASE("what is no image for this machine is named") {
    CHECK(reason(FakePe().set<std::uint16_t>(0, 0)) == "it is no PE image (no MZ at its start)");
    CHECK(reason(FakePe().set<std::uint32_t>(0x3c, 0xffff'fff0)) == "it has no PE header");
    CHECK(reason(FakePe().set<std::uint32_t>(FakePe::pe, 1)) == "it has no PE header");
    CHECK(reason(FakePe().set<std::uint16_t>(FakePe::coff, 0xaa64)) ==
          "it is built for another machine than x86-64");
    CHECK(reason(FakePe().set<std::uint16_t>(FakePe::optional, 0x10b)) ==
          "it is no 64-bit image (PE32+)");
    CHECK(reason(FakePe().set<std::uint16_t>(FakePe::optional + 68, 2)) ==
          "it is no EFI program (another subsystem)");
}

TEST_CASE("sizes and places that cannot be are refused") {
    CHECK(reason(FakePe().set<std::uint32_t>(FakePe::optional + 56, 0)) ==
          "its size in memory is impossible");
    CHECK(reason(FakePe().set<std::uint32_t>(FakePe::optional + 56, 0xffff'f000)) ==
          "its size in memory is impossible");
    CHECK(reason(FakePe().set<std::uint32_t>(FakePe::optional + 60, 0x2fff)) ==
          "its headers are larger than the file");
    CHECK(reason(FakePe().set<std::uint32_t>(FakePe::optional + 16, 0x3000)) ==
          "its entry point lies outside of it");
    CHECK(reason(FakePe().set<std::uint16_t>(FakePe::coff + 2, 200)) ==
          "its section table lies outside of the file");
    CHECK(reason(FakePe().set<std::uint32_t>(FakePe::optional + 112 + 44, 0x2000)) ==
          "its relocations lie outside of it");
    FakePe section;
    section.section(0, 0x200, 0xffff'ff00, 0x200, 512);
    CHECK(reason(section) == "a section lies outside of the image");
    section.section(0, 0x200, 0x10, 0x200, 512);  // over the headers
    CHECK(reason(section) == "a section lies outside of the image");
    section.section(0, 0x200, 0x1000, 0x200, 0xffff'ff00);
    CHECK(reason(section) == "the file ends before a section's contents do");
}

TEST_CASE("relocations that lie are refused") {
    const auto load = [](const FakePe& file) -> std::string {
        const auto image = pe::parse(file.bytes);
        REQUIRE(image);
        std::vector<std::byte> memory(image->size);
        const auto loaded = pe::load(*image, file.bytes, memory, 0x10'0000);
        return loaded ? "" : loaded.error().reason;
    };
    CHECK(load(FakePe().set<std::uint32_t>(1024, 0x3000)) ==
          "a relocation lies outside of the image");
    CHECK(load(FakePe().set<std::uint32_t>(1028, 0x100)) ==
          "a block of relocations has an impossible size");
    CHECK(load(FakePe().set<std::uint32_t>(1028, 4)) ==
          "a block of relocations has an impossible size");
    CHECK(load(FakePe().set<std::uint16_t>(1032, 9 << 12)) == "a relocation of an unknown kind");
    CHECK(load(FakePe().set<std::uint32_t>(1028, 0)).empty());  // padding ends the list
}

TEST_CASE("a file cut anywhere never loads more than it holds") {
    const FakePe file;
    for (std::size_t size = 0; size < 1024 + 12; ++size) {
        const std::vector<std::byte> cut(file.bytes.begin(),
                                         file.bytes.begin() + static_cast<std::ptrdiff_t>(size));
        CHECK_FALSE(pe::parse(cut));
    }
}

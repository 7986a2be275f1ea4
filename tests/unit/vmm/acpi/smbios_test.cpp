#include <doctest/doctest.h>

#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "vmm/acpi/smbios.hpp"
#include "vmm/layout.hpp"

using namespace masu;
using namespace masu::acpi;

namespace {

using View = std::span<const std::byte>;

struct Structure {
    std::vector<std::byte> formatted;
    std::vector<std::string> strings;

    template <class T>
    T at(std::size_t offset) const {
        REQUIRE(offset + sizeof(T) <= formatted.size());
        return load_unaligned<T>(formatted.data() + offset);
    }
    // The string that the byte at `offset` refers to.
    std::string string(std::size_t offset) const {
        const auto number = at<std::uint8_t>(offset);
        REQUIRE(number <= strings.size());
        return number == 0 ? "" : strings[number - 1U];
    }
};

// A guest's walk over the structures, in order.
std::multimap<unsigned, Structure> parse(View all) {
    std::multimap<unsigned, Structure> found;
    REQUIRE(std::memcmp(all.data(), "_SM3_", 5) == 0);
    const auto entry_size = std::to_integer<std::size_t>(all[6]);
    CHECK(entry_size == 24);
    CHECK(std::accumulate(all.begin(), all.begin() + 24, 0U, [](unsigned sum, std::byte byte) {
              return (sum + std::to_integer<unsigned>(byte)) & 0xff;
          }) == 0);
    const auto address = load_unaligned<std::uint64_t>(all.data() + 16);
    const auto size = load_unaligned<std::uint32_t>(all.data() + 12);
    REQUIRE(address - layout::smbios + size == all.size());
    View rest = all.subspan(address - layout::smbios);
    while (!rest.empty()) {
        const auto length = std::to_integer<std::size_t>(rest[1]);
        REQUIRE(length >= 4);
        REQUIRE(length + 2 <= rest.size());
        Structure structure{{rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(length)}, {}};
        const auto type = std::to_integer<unsigned>(rest[0]);
        rest = rest.subspan(length);
        std::string text;
        std::size_t used = 0;
        while (used < rest.size()) {
            const auto c = std::to_integer<char>(rest[used++]);
            if (c != '\0') {
                text += c;
                continue;
            }
            if (text.empty())
                break;
            structure.strings.push_back(std::exchange(text, {}));
        }
        if (structure.strings.empty())
            ++used;  // two zero bytes stand for no strings
        rest = rest.subspan(used);
        found.emplace(type, std::move(structure));
    }
    return found;
}

const Structure& only(const std::multimap<unsigned, Structure>& found, unsigned type) {
    REQUIRE(found.count(type) == 1);
    return found.find(type)->second;
}

}  // namespace

TEST_CASE("smbios: an EC2 instance is recognised by what cloud-init reads") {
    SmbiosDescription description;
    description.identity.manufacturer = "Amazon EC2";
    description.identity.product = "t3.micro";
    description.identity.uuid = parse_uuid("ec2e1916-9099-7caf-fd21-012345abcdef").value();
    description.identity.serial = "ec2e1916-9099-7caf-fd21-012345abcdef";
    description.identity.board_asset_tag = "i-0123456789abcdef0";
    description.identity.chassis_asset_tag = "Amazon EC2";
    description.memory_bytes = 1 * GiB;
    const auto found = parse(build_smbios(description).value());

    const auto& system = only(found, 1);
    CHECK(system.formatted.size() == 0x1b);
    CHECK(system.string(4) == "Amazon EC2");
    CHECK(system.string(5) == "t3.micro");
    CHECK(system.string(7) == "ec2e1916-9099-7caf-fd21-012345abcdef");
    // Stored little-endian, so that version 3 readers print it as it was given.
    CHECK(system.at<std::uint32_t>(8) == 0xec2e1916);
    CHECK(system.at<std::uint16_t>(12) == 0x9099);
    CHECK(system.at<std::uint16_t>(14) == 0x7caf);
    CHECK(system.at<std::uint8_t>(16) == 0xfd);
    CHECK(system.at<std::uint8_t>(23) == 0xef);
    CHECK(only(found, 2).string(8) == "i-0123456789abcdef0");
    CHECK(only(found, 3).string(8) == "Amazon EC2");
    CHECK(only(found, 0).formatted.size() == 0x1a);
}

TEST_CASE("smbios: a NoCloud seed stands in the serial number") {
    SmbiosDescription description;
    description.identity.serial = "ds=nocloud;s=http://10.0.2.2/seed/";
    description.memory_bytes = 64 * MiB;
    const auto found = parse(build_smbios(description).value());
    CHECK(only(found, 1).string(7) == "ds=nocloud;s=http://10.0.2.2/seed/");
    CHECK(only(found, 1).string(4) == "Masu");
    CHECK(only(found, 1).string(25).empty());
    CHECK(found.count(11) == 0);
    CHECK(only(found, 127).formatted.size() == 4);
}

TEST_CASE("smbios: processors and memory") {
    SmbiosDescription description;
    description.vcpus = 4;
    description.memory_bytes = 512 * MiB;
    SUBCASE("below the hole") {
        const auto found = parse(build_smbios(description).value());
        CHECK(only(found, 4).at<std::uint8_t>(0x23) == 4);
        CHECK(only(found, 4).formatted.size() == 0x30);
        CHECK(only(found, 17).at<std::uint16_t>(0x0c) == 512);
        CHECK(only(found, 17).formatted.size() == 0x28);
        CHECK(only(found, 16).at<std::uint32_t>(7) == 512 * 1024);
        const auto& range = only(found, 19);
        CHECK(range.at<std::uint32_t>(4) == 0);
        CHECK(range.at<std::uint32_t>(8) == 512 * 1024 - 1);
    }
    SUBCASE("beyond the hole") {
        description.memory_bytes = 6 * GiB;
        const auto found = parse(build_smbios(description).value());
        REQUIRE(found.count(19) == 2);
        const auto& high = std::next(found.lower_bound(19))->second;
        CHECK(high.at<std::uint32_t>(4) == 4 * 1024 * 1024);
        CHECK(high.at<std::uint32_t>(8) == 7 * 1024 * 1024 - 1);
    }
    SUBCASE("more than the old fields hold") {
        description.memory_bytes = 8192 * GiB;
        const auto found = parse(build_smbios(description).value());
        CHECK(only(found, 17).at<std::uint16_t>(0x0c) == 0x7fff);
        CHECK(only(found, 17).at<std::uint32_t>(0x1c) == 8192 * 1024);
        CHECK(only(found, 16).at<std::uint64_t>(0x0f) == 8192 * GiB);
        const auto& high = std::next(found.lower_bound(19))->second;
        CHECK(high.at<std::uint32_t>(4) == 0xffff'ffff);
        CHECK(high.at<std::uint64_t>(0x0f) == layout::high_ram_start);
    }
}

TEST_CASE("smbios: unfit strings are refused") {
    SmbiosDescription description;
    description.memory_bytes = 64 * MiB;
    SUBCASE("too long") {
        description.identity.serial = std::string(256, 's');
        CHECK_FALSE(build_smbios(description));
        description.identity.serial.pop_back();
        CHECK(build_smbios(description));
    }
    SUBCASE("a zero byte inside") {
        description.identity.product = std::string("a\0b", 3);
        CHECK_FALSE(build_smbios(description));
    }
    SUBCASE("OEM strings") {
        description.identity.oem_strings = {"one", "two"};
        const auto found = parse(build_smbios(description).value());
        CHECK(only(found, 11).strings == std::vector<std::string>{"one", "two"});
        CHECK(only(found, 11).at<std::uint8_t>(4) == 2);
        description.identity.oem_strings = {""};
        CHECK_FALSE(build_smbios(description));
        description.identity.oem_strings.assign(256, "x");
        CHECK_FALSE(build_smbios(description));
        description.identity.oem_strings.assign(255, std::string(255, 'x'));
        CHECK_FALSE(build_smbios(description));  // would run over the end of the first MiB
    }
}

TEST_CASE("smbios: UUIDs are read strictly") {
    CHECK(parse_uuid("EC2E1916-9099-7CAF-FD21-012345ABCDEF").value()[0] == 0xec);
    CHECK_FALSE(parse_uuid(""));
    CHECK_FALSE(parse_uuid("ec2e1916-9099-7caf-fd21-012345abcde"));
    CHECK_FALSE(parse_uuid("ec2e1916-9099-7caf-fd21-012345abcdeg"));
    CHECK_FALSE(parse_uuid("ec2e19169-099-7caf-fd21-012345abcdef"));
}

TEST_CASE("smbios: installed where kernels scan for it") {
    std::vector<std::byte> ram(1 * MiB);
    const GuestMemory memory({{{0}, ram}});
    SmbiosDescription description;
    description.memory_bytes = 64 * MiB;
    REQUIRE(install_smbios(description, memory));
    CHECK(std::memcmp(ram.data() + layout::smbios, "_SM3_", 5) == 0);
    const GuestMemory small({{{0}, std::span(ram).first(512 * KiB)}});
    CHECK_FALSE(install_smbios(description, small));
}

// Header, masks, BAR sizing and the capability list.
#include "devices/pci/config_space.hpp"

#include <doctest/doctest.h>

#include <random>
#include <vector>

namespace masu::pci {
namespace {

constexpr Identity identity{.vendor = 0x1af4,
                            .device = 0x1042,
                            .class_code = 0x018000,
                            .revision = 1,
                            .subsystem_vendor = 0x1234,
                            .subsystem = 0x5678};

template <class T>
T read(const ConfigSpace& space, std::uint16_t offset) {
    T value{};
    space.read(offset, std::as_writable_bytes(std::span(&value, 1)));
    return value;
}
template <class T>
void write(ConfigSpace& space, std::uint16_t offset, T value) {
    space.write(offset, as_bytes_of(value));
}

}  // namespace

TEST_CASE("the header says who it is") {
    const ConfigSpace space(identity);
    CHECK(read<std::uint32_t>(space, 0x00) == 0x10421af4);
    CHECK(read<std::uint32_t>(space, 0x08) == 0x01800001);
    CHECK(read<std::uint32_t>(space, 0x2c) == 0x56781234);
    CHECK(read<std::uint8_t>(space, reg::header_type) == 0);
    CHECK(read<std::uint8_t>(space, reg::interrupt_pin) == 0);
    CHECK(read<std::uint8_t>(space, reg::capabilities) == 0);
    CHECK(read<std::uint32_t>(space, 0x100) == 0);  // no extended capability
}

TEST_CASE("only what the masks allow can be written") {
    ConfigSpace space(identity);
    for (std::uint16_t offset = 0; offset < config_space_size; offset += 4)
        write(space, offset, ~0U);
    CHECK(read<std::uint32_t>(space, 0x00) == 0x10421af4);
    CHECK(read<std::uint16_t>(space, reg::command) == 0x0546);
    CHECK(read<std::uint16_t>(space, reg::status) == 0);
    CHECK(read<std::uint32_t>(space, 0x08) == 0x01800001);
    CHECK(read<std::uint32_t>(space, 0x0c) == 0xff);
    for (std::uint16_t bar = 0x10; bar < 0x28; bar += 4)
        CHECK(read<std::uint32_t>(space, bar) == 0);
    CHECK(read<std::uint32_t>(space, 0x30) == 0);  // no expansion ROM
    CHECK(read<std::uint32_t>(space, 0x3c) == 0xff);
    CHECK(read<std::uint32_t>(space, 0xffc) == 0);
}

TEST_CASE("writing 1 clears an error bit of the status register") {
    ConfigSpace space(identity);
    space.set(reg::status, std::uint16_t{0xf900});
    write<std::uint16_t>(space, reg::status, 0x8000);
    CHECK(read<std::uint16_t>(space, reg::status) == 0x7900);
    write<std::uint16_t>(space, reg::status, 0);
    CHECK(read<std::uint16_t>(space, reg::status) == 0x7900);
    write<std::uint32_t>(space, reg::command, 0xffff'0000);
    CHECK(read<std::uint16_t>(space, reg::status) == 0);
}

TEST_CASE("a 32-bit BAR tells its size") {
    ConfigSpace space(identity);
    REQUIRE(space.add_bar(0, BarKind::Memory32, 0x8000));
    write(space, reg::bar0, ~0U);
    CHECK(read<std::uint32_t>(space, reg::bar0) == 0xffff8000);
    write(space, reg::bar0, 0xd000'4567U);
    CHECK(read<std::uint32_t>(space, reg::bar0) == 0xd000'0000);
    CHECK(space.bar_address(0) == 0xd000'0000);
    CHECK(space.bar_size(0) == 0x8000);
    CHECK(space.bar_size(1) == 0);
}

TEST_CASE("a 64-bit BAR takes two registers") {
    ConfigSpace space(identity);
    REQUIRE(space.add_bar(2, BarKind::Memory64, 8 * GiB));
    write(space, 0x18, ~0U);
    write(space, 0x1c, ~0U);
    CHECK(read<std::uint32_t>(space, 0x18) == 4);
    CHECK(read<std::uint32_t>(space, 0x1c) == 0xffff'fffe);
    space.set_bar_address(2, 0x12'0000'0000);
    CHECK(space.bar_address(2) == 0x12'0000'0000);
    CHECK(space.bar_size(3) == 0);
    CHECK(space.bar_address(3) == 0);
}

TEST_CASE("BARs that cannot be are refused") {
    ConfigSpace space(identity);
    CHECK_FALSE(space.add_bar(0, BarKind::Memory32, 0));
    CHECK_FALSE(space.add_bar(0, BarKind::Memory32, 8));
    CHECK_FALSE(space.add_bar(0, BarKind::Memory32, 0x3000));
    CHECK_FALSE(space.add_bar(0, BarKind::Memory32, 4 * GiB));
    CHECK_FALSE(space.add_bar(6, BarKind::Memory32, 4096));
    CHECK_FALSE(space.add_bar(5, BarKind::Memory64, 4096));
    REQUIRE(space.add_bar(0, BarKind::Memory64, 4096));
    CHECK_FALSE(space.add_bar(0, BarKind::Memory32, 4096));
    CHECK_FALSE(space.add_bar(1, BarKind::Memory32, 4096));
    CHECK(space.add_bar(2, BarKind::Memory32, 4096));
}

TEST_CASE("capabilities form a list, with the write masks they asked for") {
    ConfigSpace space(identity);
    const std::vector<std::byte> body(5, std::byte{0xaa});
    const std::vector<std::byte> mask{std::byte{0}, std::byte{0x0f}};
    const auto first = space.add_capability(0x09, body, mask);
    const auto second = space.add_capability(0x11, body);
    REQUIRE(first);
    REQUIRE(second);
    CHECK((read<std::uint16_t>(space, reg::status) & 0x10) != 0);
    CHECK(read<std::uint8_t>(space, reg::capabilities) == *first);
    CHECK(read<std::uint16_t>(space, *first) == (*second << 8 | 0x09));
    CHECK(read<std::uint16_t>(space, *second) == 0x0011);
    CHECK(*second % 4 == 0);
    write(space, static_cast<std::uint16_t>(*first + 2), std::uint32_t{0});
    CHECK(read<std::uint32_t>(space, static_cast<std::uint16_t>(*first + 2)) == 0xaaaaa0aa);
}

TEST_CASE("a capability that does not fit is an error") {
    ConfigSpace space(identity);
    CHECK_FALSE(space.add_capability(0x09, std::vector<std::byte>(191)));
    CHECK(space.add_capability(0x09, std::vector<std::byte>(190)));
    CHECK_FALSE(space.add_capability(0x09, {}));
}

TEST_CASE("any access is safe, also across the end") {
    ConfigSpace space(identity);
    CHECK(read<std::uint64_t>(space, 0xffc) == 0xffff'ffff'0000'0000);
    CHECK(read<std::uint32_t>(space, 0xffff) == ~0U);
    write(space, 0xffd, ~std::uint64_t{0});
    write(space, 0xffff, ~std::uint64_t{0});
    std::mt19937 random(1);
    std::vector<std::byte> data(8);
    for (int i = 0; i < 10000; ++i) {
        const auto size = 1 + random() % 8;
        for (auto& byte : data)
            byte = static_cast<std::byte>(random());
        space.write(static_cast<std::uint16_t>(random() % 0x1010), std::span(data).first(size));
        space.read(static_cast<std::uint16_t>(random() % 0x1010), std::span(data).first(size));
    }
    CHECK(read<std::uint32_t>(space, 0x00) == 0x10421af4);
}

TEST_CASE("a saved state brings back what the guest wrote, and nothing else") {
    ConfigSpace space(identity);
    REQUIRE(space.add_bar(0, BarKind::Memory32, 4096));
    auto saved = space.save();
    space.set_bar_address(0, 0xd000'0000);
    write<std::uint16_t>(space, reg::command, command::memory_space);
    const auto good = space.save();
    space.restore(saved);
    CHECK(space.bar_address(0) == 0);
    CHECK_FALSE(space.memory_enabled());
    space.restore(good);
    CHECK(space.bar_address(0) == 0xd000'0000);
    CHECK(space.memory_enabled());
    saved.bytes.fill(std::byte{0xff});
    space.restore(saved);
    CHECK(read<std::uint32_t>(space, 0x00) == 0x10421af4);
    CHECK(read<std::uint32_t>(space, reg::bar0) == 0xffff'f000);
}

}  // namespace masu::pci

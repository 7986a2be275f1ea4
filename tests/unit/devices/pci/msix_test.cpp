// Masks, pending bits and rude accesses.
#include "devices/pci/msix.hpp"

#include <doctest/doctest.h>

#include <array>
#include <random>

#include "tests/unit/devices/pci/fake_pci.hpp"

namespace masu::pci {
namespace {

constexpr std::uint16_t enable = 0x8000;
constexpr std::uint16_t function_mask = 0x4000;

struct Fixture {
    fake::RecordingBank bank;
    Msix msix{bank, 70};
    ConfigSpace space{Identity{}};
    std::uint16_t capability = 0;

    Fixture() {
        REQUIRE(
            msix.add_capability(space, {.bar = 2, .table_offset = 0x1000, .pba_offset = 0x2000}));
        capability = space.get<std::uint8_t>(reg::capabilities);
    }
    void set_control(std::uint16_t value) {
        space.write(static_cast<std::uint16_t>(capability + 2), as_bytes_of(value));
        msix.config_written(space);
    }
    void put(std::uint64_t offset, std::uint32_t value) {
        msix.write_table(offset, as_bytes_of(value));
    }
    template <class T = std::uint32_t>
    T get(std::uint64_t offset) {
        T value{};
        msix.read_table(offset, std::as_writable_bytes(std::span(&value, 1)));
        return value;
    }
    std::uint64_t pending(std::uint64_t offset) {
        std::uint64_t value = 0;
        msix.read_pba(offset, std::as_writable_bytes(std::span(&value, 1)));
        return value;
    }
    void set_up(unsigned vector, bool masked) {
        put(vector * 16U, 0xfee0'1000);
        put(vector * 16U + 4, 0);
        put(vector * 16U + 8, 0x40 + vector);
        put(vector * 16U + 12, masked ? 1 : 0);
    }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "the capability says where and how many") {
    CHECK(space.get<std::uint8_t>(capability) == 0x11);
    CHECK(space.get<std::uint16_t>(static_cast<std::uint16_t>(capability + 2)) == 69);
    CHECK(space.get<std::uint32_t>(static_cast<std::uint16_t>(capability + 4)) == 0x1002);
    CHECK(space.get<std::uint32_t>(static_cast<std::uint16_t>(capability + 8)) == 0x2002);
    set_control(0xffff);
    CHECK(space.get<std::uint16_t>(static_cast<std::uint16_t>(capability + 2)) == (0xc000 | 69));
}

TEST_CASE_FIXTURE(Fixture, "the way Linux enables it ends in routed vectors") {
    for (unsigned vector = 0; vector < 70; ++vector)
        CHECK(get(vector * 16U + 12) == 1);  // masked after reset
    set_control(enable | function_mask);
    set_up(3, true);
    put(3 * 16 + 12, 0);
    CHECK_FALSE(bank.routes[3]);
    set_control(enable);
    REQUIRE(bank.routes[3]);
    CHECK(*bank.routes[3] == MsiMessage{.address = 0xfee0'1000, .data = 0x43});
    CHECK(bank.route_calls == 1);
    msix.signal(3);
    CHECK(bank.take(0x43));
    CHECK(pending(0) == 0);
}

TEST_CASE_FIXTURE(Fixture, "a masked vector waits in the PBA and is sent once at unmask") {
    set_control(enable);
    set_up(65, true);
    msix.signal(65);
    msix.signal(65);
    CHECK(bank.sent.empty());
    CHECK(pending(8) == 2);
    CHECK(pending(0) == 0);
    put(65 * 16 + 12, 0);
    CHECK(bank.sent.size() == 1);
    CHECK(bank.take(0x40 + 65));
    CHECK(pending(8) == 0);
    put(65 * 16 + 12, 1);
    CHECK_FALSE(bank.routes[65]);
    put(65 * 16 + 12, 0);
    CHECK(bank.sent.empty());
}

TEST_CASE_FIXTURE(Fixture, "the function mask holds everything back") {
    set_control(enable);
    set_up(0, false);
    set_up(1, true);
    set_control(enable | function_mask);
    msix.signal(0);
    msix.signal(1);
    CHECK(bank.sent.empty());
    CHECK(pending(0) == 3);
    set_control(enable);
    CHECK(bank.take(0x40));
    CHECK(bank.sent.empty());
    CHECK(pending(0) == 2);
    CHECK(bank.unrouted_signals == 0);
}

TEST_CASE_FIXTURE(Fixture, "a message changed while masked goes out in its new form") {
    set_control(enable);
    set_up(0, true);
    msix.signal(0);
    put(8, 0x99);
    put(0, 0xfee0'2003);
    put(12, 0xffff'fffe);
    REQUIRE(bank.sent.size() == 1);
    CHECK(bank.sent[0] == MsiMessage{.address = 0xfee0'2000, .data = 0x99});
    CHECK(get(12) == 0);
}

TEST_CASE_FIXTURE(Fixture, "disabled, or without such a vector, nothing happens") {
    set_up(0, false);
    msix.signal(0);
    CHECK(pending(0) == 0);
    set_control(enable);
    msix.signal(70);
    msix.signal(0xffff);
    CHECK(bank.sent.empty());
    msix.signal(0);
    CHECK(bank.take(0x40));
    set_control(0);
    CHECK_FALSE(bank.routes[0]);
    msix.signal(0);
    CHECK(bank.sent.empty());
    CHECK(bank.unrouted_signals == 0);
}

TEST_CASE_FIXTURE(Fixture, "the table takes 4 and 8 aligned bytes, and nothing else") {
    const std::uint64_t eight = 0x1'fee0'3000;
    msix.write_table(16, as_bytes_of(eight));
    CHECK(get<std::uint64_t>(16) == eight);
    CHECK(get(20) == 1);
    std::array<std::byte, 8> ones;
    ones.fill(std::byte{0xff});
    for (const std::size_t size : {1, 2, 3, 5, 6, 7})
        msix.write_table(16, std::span(ones).first(size));
    msix.write_table(18, std::span(ones).first(4));
    msix.write_table(20, ones);
    CHECK(get<std::uint64_t>(16) == eight);
    CHECK(get<std::uint16_t>(16) == 0);  // left as it was
    CHECK(get<std::uint64_t>(20) == 0);
}

TEST_CASE_FIXTURE(Fixture, "nothing lies beyond the table and the PBA") {
    std::array<std::byte, 8> ones;
    ones.fill(std::byte{0xff});
    for (const std::uint64_t offset : {70 * 16UL, 0x1000UL, ~7UL, ~0UL}) {
        msix.write_table(offset, ones);
        CHECK(get<std::uint64_t>(offset) == 0);
        CHECK(pending(offset) == 0);
    }
    CHECK(pending(16) == 0);
    std::mt19937_64 random(1);
    for (int i = 0; i < 20000; ++i) {
        const auto offset = random() % 0x500;
        const auto size = 1 + random() % 8;
        auto data = random();
        const std::span bytes(std::as_writable_bytes(std::span(&data, 1)));
        msix.write_table(offset, bytes.first(size));
        msix.read_table(offset, bytes.first(size));
        msix.read_pba(offset % 32, bytes.first(size));
        set_control(static_cast<std::uint16_t>(data));
        msix.signal(static_cast<unsigned>(data >> 16) % 80);
    }
    CHECK(bank.unrouted_signals == 0);
}

TEST_CASE_FIXTURE(Fixture, "a saved state is routed anew") {
    set_control(enable);
    set_up(2, false);
    set_up(4, true);
    msix.signal(4);
    const auto saved = msix.save();

    fake::RecordingBank other_bank;
    Msix other(other_bank, 70);
    REQUIRE(other.restore(saved));
    REQUIRE(other_bank.routes[2]);
    CHECK(other_bank.routes[2]->data == 0x42);
    CHECK(other_bank.sent.empty());
    const std::uint32_t unmasked = 0;
    other.write_table(4 * 16 + 12, as_bytes_of(unmasked));
    CHECK(other_bank.take(0x44));

    Msix smaller(other_bank, 69);
    CHECK_FALSE(smaller.restore(saved));
}

}  // namespace masu::pci

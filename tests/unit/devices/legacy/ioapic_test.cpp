#include <doctest/doctest.h>

#include "base/bytes.hpp"
#include "devices/legacy/ioapic.hpp"
#include "fakes.hpp"

using namespace masu;
using namespace masu::legacy;
using namespace masu::legacy::test;

namespace {

constexpr std::uint64_t masked = 1 << 16;
constexpr std::uint64_t level = 1 << 15;
constexpr std::uint64_t remote_irr = 1 << 14;
constexpr std::uint32_t msi_edge = 1 << 14;  // "assert"
constexpr std::uint32_t msi_level = msi_edge | 1 << 15;

struct Fixture {
    FakeBank bank;
    Ioapic ioapic{bank};

    void write32(std::uint64_t offset, std::uint32_t value) {
        ioapic.write(offset, as_bytes_of(value));
    }
    std::uint32_t read32(std::uint64_t offset) {
        std::array<std::byte, 4> data{};
        ioapic.read(offset, data);
        return load_unaligned<std::uint32_t>(data.data());
    }
    std::uint32_t read_register(std::uint8_t index) {
        write32(0, index);
        return read32(0x10);
    }
    void write_register(std::uint8_t index, std::uint32_t value) {
        write32(0, index);
        write32(0x10, value);
    }
    // As Linux does it: the half that unmasks comes last.
    void set_entry(unsigned pin, std::uint64_t value) {
        write_register(static_cast<std::uint8_t>(0x11 + 2 * pin),
                       static_cast<std::uint32_t>(value >> 32));
        write_register(static_cast<std::uint8_t>(0x10 + 2 * pin),
                       static_cast<std::uint32_t>(value));
    }
    std::uint64_t entry(unsigned pin) {
        return std::uint64_t{read_register(static_cast<std::uint8_t>(0x11 + 2 * pin))} << 32 |
               read_register(static_cast<std::uint8_t>(0x10 + 2 * pin));
    }
    void pulse(unsigned pin) {
        ioapic.line(pin).set(true);
        ioapic.line(pin).set(false);
    }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "ioapic: after reset every pin is masked and nothing is routed") {
    CHECK(read_register(1) == 0x0017'0020);
    for (unsigned pin = 0; pin < ioapic_pin_count; ++pin) {
        CHECK(entry(pin) == masked);
        pulse(pin);
    }
    CHECK(bank.route_calls == 0);
    CHECK(bank.sent.empty());
}

TEST_CASE_FIXTURE(Fixture, "ioapic: the id keeps its four bits") {
    write_register(0, 0xffff'ffff);
    CHECK(read_register(0) == 0x0f00'0000);
    CHECK(read_register(2) == 0x0f00'0000);
    write_register(1, 0);
    CHECK(read_register(1) == 0x0017'0020);
}

TEST_CASE_FIXTURE(Fixture, "ioapic: an edge sends the entry's message once") {
    set_entry(4, std::uint64_t{3} << 56 | 0x31);
    CHECK(bank.routes[4] == MsiMessage{0xfee0'3000, msi_edge | 0x31});
    ioapic.line(4).set(true);
    CHECK(bank.sent == std::vector{MsiMessage{0xfee0'3000, msi_edge | 0x31}});
    ioapic.line(4).set(false);
    CHECK(bank.sent.size() == 1);
    // Two devices that pulse one pin at once: each set(true) counts.
    ioapic.line(4).set(true);
    ioapic.line(4).set(true);
    CHECK(bank.sent.size() == 3);
    CHECK((entry(4) & remote_irr) == 0);
}

TEST_CASE_FIXTURE(Fixture, "ioapic: destination and delivery modes become the message's") {
    SUBCASE("logical, lowest priority") {
        set_entry(7, std::uint64_t{0xff} << 56 | 1 << 11 | 0x100 | 0x55);
        CHECK(bank.routes[7] == MsiMessage{0xfeef'f004, msi_edge | 0x155});
    }
    SUBCASE("NMI") {
        set_entry(7, std::uint64_t{1} << 56 | 0x400);
        CHECK(bank.routes[7] == MsiMessage{0xfee0'1000, msi_edge | 0x400});
    }
    SUBCASE("more than 255 CPUs") {
        set_entry(7, std::uint64_t{0x12} << 56 | std::uint64_t{0x03} << 49 | 0x40);
        CHECK(bank.routes[7] == MsiMessage{0xfee1'2060, msi_edge | 0x40});
    }
    SUBCASE("ExtINT and the reserved modes send nothing") {
        for (const std::uint64_t mode : {0x700, 0x300, 0x600}) {
            set_entry(7, mode | 0x40);
            pulse(7);
        }
        CHECK(bank.sent.empty());
    }
    SUBCASE("polarity changes nothing") {
        set_entry(7, 1 << 13 | 0x40);
        CHECK(bank.sent.empty());
        ioapic.line(7).set(true);
        CHECK(bank.sent.size() == 1);
        CHECK((entry(7) & 1 << 13) != 0);
    }
}

TEST_CASE_FIXTURE(Fixture, "ioapic: an edge at a masked pin is lost") {
    set_entry(4, 0x31);
    set_entry(4, masked | 0x31);
    pulse(4);
    set_entry(4, 0x31);
    CHECK(bank.sent.empty());
    ioapic.line(4).set(true);
    CHECK(bank.sent.size() == 1);
}

TEST_CASE_FIXTURE(Fixture, "ioapic: a level is sent until its source goes away") {
    set_entry(9, level | 0x39);
    ioapic.line(9).set(true);
    CHECK(bank.sent == std::vector{MsiMessage{0xfee0'0000, msi_level | 0x39}});
    CHECK((entry(9) & remote_irr) != 0);

    // Not again before the EOI, whatever the line does.
    ioapic.line(9).set(false);
    ioapic.line(9).set(true);
    CHECK(bank.sent.size() == 1);

    ioapic.end_of_interrupt(0x38);
    CHECK(bank.sent.size() == 1);
    ioapic.end_of_interrupt(0x39);
    CHECK(bank.sent.size() == 2);
    ioapic.line(9).set(false);
    ioapic.end_of_interrupt(0x39);
    CHECK(bank.sent.size() == 2);
    CHECK((entry(9) & remote_irr) == 0);
}

TEST_CASE_FIXTURE(Fixture, "ioapic: the EOI register ends an interrupt too") {
    set_entry(9, level | 0x39);
    ioapic.line(9).set(true);
    write32(0x40, 0x39);
    CHECK(bank.sent.size() == 2);
}

TEST_CASE_FIXTURE(Fixture, "ioapic: a level at a masked pin waits for the mask to go") {
    set_entry(9, masked | level | 0x39);
    ioapic.line(9).set(true);
    CHECK(bank.sent.empty());
    set_entry(9, level | 0x39);
    CHECK(bank.sent.size() == 1);
}

TEST_CASE_FIXTURE(Fixture, "ioapic: masking keeps the route, so that the EOI still arrives") {
    set_entry(9, level | 0x39);
    ioapic.line(9).set(true);
    set_entry(9, masked | level | 0x39);
    CHECK(bank.routes[9].has_value());
    ioapic.end_of_interrupt(0x39);
    CHECK(bank.sent.size() == 1);
    set_entry(9, level | 0x39);
    CHECK(bank.sent.size() == 2);
    CHECK(bank.route_calls == 1);
}

TEST_CASE_FIXTURE(Fixture, "ioapic: a detour through edge mode clears remote IRR") {
    set_entry(9, level | 0x39);
    ioapic.line(9).set(true);
    set_entry(9, masked | 0x39);
    CHECK((entry(9) & remote_irr) == 0);
    set_entry(9, level | 0x39);
    CHECK(bank.sent.size() == 2);
}

TEST_CASE_FIXTURE(Fixture, "ioapic: read-only bits of an entry are not written") {
    set_entry(2, level | masked | remote_irr | 1 << 12 | 0x22);
    CHECK(entry(2) == (level | masked | 0x22));
}

TEST_CASE_FIXTURE(Fixture, "ioapic: odd accesses and unknown registers have no effect") {
    set_entry(3, 0x33);
    write_register(0x0f, 0xffff'ffff);
    write_register(0x40, 0xffff'ffff);
    write_register(0xff, 0xffff'ffff);
    CHECK(read_register(0x40) == 0);
    CHECK(entry(3) == 0x33);
    write32(0, 0x16);
    out(ioapic, 0x10, 0xff);  // a byte is not a register
    CHECK(entry(3) == 0x33);
    trample(ioapic, 0x80);
    CHECK(read_register(1) == 0x0017'0020);
}

TEST_CASE_FIXTURE(Fixture, "ioapic: a restored one goes on where the saved one stopped") {
    set_entry(9, level | 0x39);
    set_entry(4, std::uint64_t{1} << 56 | 0x31);
    ioapic.line(9).set(true);
    set_entry(9, masked | level | 0x39);

    FakeBank other_bank;
    Ioapic other(other_bank);
    other.restore(ioapic.save());
    CHECK(other_bank.routes[4] == MsiMessage{0xfee0'1000, msi_edge | 0x31});
    CHECK(other_bank.routes[9].has_value());
    CHECK(other_bank.sent.empty());
    other.line(4).set(true);
    CHECK(other_bank.sent.size() == 1);
}

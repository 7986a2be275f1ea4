// The one-register devices: pvpanic, sleep and reset registers, event register, milestones.
#include <doctest/doctest.h>

#include <vector>

#include "base/bytes.hpp"
#include "devices/legacy/acpi_power.hpp"
#include "devices/legacy/ged.hpp"
#include "devices/legacy/milestone.hpp"
#include "devices/legacy/pvpanic.hpp"
#include "fakes.hpp"

using namespace masu;
using namespace masu::legacy;
using namespace masu::legacy::test;

namespace {

std::uint32_t read_events(GenericEventDevice& ged) {
    std::array<std::byte, 4> data{};
    ged.read(0, data);
    return load_unaligned<std::uint32_t>(data.data());
}

}  // namespace

TEST_CASE("pvpanic: offers both events and reports what the guest writes") {
    std::vector<Pvpanic::Event> seen;
    Pvpanic pvpanic([&](Pvpanic::Event event) { seen.push_back(event); });
    CHECK(in(pvpanic, 0) == 3);
    out(pvpanic, 0, 1);
    out(pvpanic, 0, 2);
    out(pvpanic, 0, 0xfc);
    CHECK(seen == std::vector{Pvpanic::Event::Panicked, Pvpanic::Event::CrashLoaded});
}

TEST_CASE("acpi power: S5 with sleep enable switches off, nothing else does") {
    unsigned offs = 0;
    unsigned resets = 0;
    AcpiPower power(1, [&] { ++offs; }, [&] { ++resets; });
    out(power, 0, 5 << 2);
    CHECK(in(power, 0) == 5 << 2);
    out(power, 0, 1 << 5 | 3 << 2);
    out(power, 0, 1 << 5);
    out(power, 1, 0x80);
    CHECK(in(power, 1) == 0);
    CHECK(offs == 0);
    out(power, 0, 1 << 5 | 5 << 2);
    CHECK(offs == 1);
    CHECK(in(power, 0) == 5 << 2);
    CHECK(resets == 0);
}

TEST_CASE("acpi power: only the reset value resets") {
    unsigned resets = 0;
    AcpiPower power(1, [] {}, [&] { ++resets; });
    out(power, 2, 0);
    out(power, 2, 0xff);
    CHECK(resets == 0);
    out(power, 2, 1);
    CHECK(resets == 1);
    CHECK(in(power, 2) == 0);
    trample(power, AcpiPower::port_count);
}

TEST_CASE("ged: events wait until they are read, and each raise is an edge") {
    FakeLine line;
    GenericEventDevice ged(line);
    CHECK(read_events(ged) == 0);
    ged.raise(GedEvent::PowerButton);
    ged.raise(GedEvent::DeviceCheck);
    CHECK(line.edges == 2);
    CHECK_FALSE(line.level);
    CHECK(read_events(ged) == 5);
    CHECK(read_events(ged) == 0);
}

TEST_CASE("ged: only a whole read of the register takes the events") {
    FakeLine line;
    GenericEventDevice ged(line);
    ged.raise(GedEvent::PowerButton);
    CHECK(in(ged, 0) == 0);
    std::array<std::byte, 8> beyond{};
    ged.read(4, beyond);
    ged.write(0, beyond);
    CHECK(beyond == std::array<std::byte, 8>{});
    CHECK(read_events(ged) == 1);
    trample(ged, 16);
}

TEST_CASE("milestone: the first 123 counts, from either bus") {
    unsigned reached = 0;
    MilestoneDevice milestone([&] { ++reached; });
    out(milestone, 0, 122);
    out(milestone, 1, 123);
    CHECK(reached == 0);
    milestone.write(0, as_bytes_of(std::uint32_t{123}));
    out(milestone, 0, 123);
    CHECK(reached == 1);
    CHECK(in(milestone, 0) == 0xff);
}

TEST_CASE("milestone: the firmware's events count once each") {
    unsigned reached = 0;
    std::vector<std::uint8_t> events;
    MilestoneDevice milestone([&] { ++reached; },
                              [&](std::uint8_t event) { events.push_back(event); });
    for (const int value : {0xf0, 0xef, 0xf1, 0xf0, 0xff, 0xff, 123})
        out(milestone, 0, static_cast<std::uint8_t>(value));
    out(milestone, 1, 0xf2);
    CHECK(events == std::vector<std::uint8_t>{0xf0, 0xf1, 0xff});
    CHECK(reached == 1);
}

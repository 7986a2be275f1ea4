#include <doctest/doctest.h>

#include "tests/kvm/payload_machine.hpp"
#include "tests/kvm/payloads.hpp"

using namespace masu;
using namespace masu::test;
using Reports = std::vector<std::uint32_t>;

namespace {

constexpr std::uint64_t wanted_interrupts = 0x40000;

// To the LAPIC with id 0, edge, fixed.
constexpr MsiMessage to_vector(std::uint32_t vector) {
    return {.address = 0xfee0'0000, .data = vector};
}

}  // namespace

TEST_CASE("a routed MSI wakes the guest through its irqfd") {
    PayloadMachine machine(msi_payload());
    auto bank = machine.routes->create_bank(3);
    REQUIRE(bank);
    machine.poke32(wanted_interrupts, 3);
    machine.start();
    REQUIRE(machine.wait_for_reports(1) == Reports{0});

    (*bank)->signal(1);  // no route: nothing
    (*bank)->route(1, to_vector(0x40));
    (*bank)->signal(1);
    CHECK(machine.wait_for_reports(2) == Reports{0, 1});

    (*bank)->route(1, std::nullopt);
    (*bank)->signal(1);  // masked: nothing
    (*bank)->route(1, to_vector(0x40));
    (*bank)->signal(1);
    CHECK(machine.wait_for_reports(3) == Reports{0, 1, 2});

    (*bank)->route(2, to_vector(0x40));
    (*bank)->signal(2);
    CHECK(machine.wait_until_done());
    CHECK(machine.wait_for_reports(4) == Reports{0, 1, 2, 3});
}

TEST_CASE("interrupts that arrive while the machine is paused are taken after it") {
    PayloadMachine machine(msi_payload());
    auto bank = machine.routes->create_bank(1);
    REQUIRE(bank);
    machine.poke32(wanted_interrupts, 1);
    machine.start();
    REQUIRE(machine.wait_for_reports(1) == Reports{0});
    machine.vcpus->pause();
    (*bank)->route(0, to_vector(0x40));
    (*bank)->signal(0);
    CHECK(machine.wait_for_reports(1) == Reports{0});
    machine.vcpus->resume();
    CHECK(machine.wait_until_done());
}

TEST_CASE("a level-triggered IOAPIC pin comes again after each end of interrupt") {
    PayloadMachine machine(ioapic_payload());
    machine.port_device.on_write = [&](std::uint8_t level) {
        machine.ioapic->line(5).set(level != 0);
    };
    machine.start();
    REQUIRE(machine.wait_until_done());
    CHECK(machine.wait_for_reports(3) == Reports{1, 2, 3});
    CHECK(machine.count("exit_ioapic_eoi") >= 2);
}

TEST_CASE("the LAPIC timer wakes a halted processor") {
    PayloadMachine machine(timer_payload());
    machine.start();
    REQUIRE(machine.wait_until_done());
    CHECK(machine.wait_for_reports(4) == Reports{1, 2, 3, 4});
}

#include <doctest/doctest.h>

#include "tests/kvm/payload_machine.hpp"
#include "tests/kvm/payloads.hpp"

using namespace masu;
using namespace masu::test;
using Reports = std::vector<std::uint32_t>;

TEST_CASE("port accesses of every width reach the bus, strings element by element") {
    PayloadMachine machine(ports_payload());
    machine.start();
    REQUIRE(machine.wait_until_done());
    CHECK(machine.wait_for_reports(4) == Reports{0x11, 0x2222, 0x4444'4444, 0xffff});
    CHECK(machine.port_device.written() == "\x11\x22\x22\x44\x44\x44\x44measured out by the box");
    CHECK(machine.count("exit_io_in") == 4);
    CHECK(machine.count("exit_io_out") > 7);
}

TEST_CASE("MMIO accesses of every width reach the bus") {
    PayloadMachine machine(mmio_payload());
    machine.start();
    REQUIRE(machine.wait_until_done());
    CHECK(machine.wait_for_reports(6) ==
          Reports{0x11, 0x2222, 0x4444'4444, 0x4433'2211, 0x8877'6655, 0xffff'ffff});
    CHECK(machine.mmio_device.written() ==
          "\x11\x22\x22\x44\x44\x44\x44\x11\x22\x33\x44\x55\x66\x77\x88");
    CHECK(machine.count("exit_mmio_read") == 5);
    CHECK(machine.count("exit_mmio_write") == 4);
}

TEST_CASE("a triple fault ends the machine with its reason") {
    PayloadMachine machine(triple_fault_payload(), 2);
    machine.start();
    const auto stop = machine.wait_for_stop();
    REQUIRE(stop);
    CHECK(stop->kind == StopKind::TripleFault);
    CHECK(machine.count("exit_shutdown") == 1);
    machine.vcpus->pause();
    machine.vcpus->stop();
    CHECK(machine.vcpus->states() ==
          std::vector{kvm::VcpuState::Finished, kvm::VcpuState::Finished});
}

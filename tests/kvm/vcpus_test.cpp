#include <doctest/doctest.h>

#include <algorithm>
#include <thread>

#include "tests/kvm/payload_machine.hpp"
#include "tests/kvm/payloads.hpp"

using namespace masu;
using namespace masu::test;
using Reports = std::vector<std::uint32_t>;

namespace {

constexpr std::uint64_t wanted_processors = 0x40000;
constexpr std::uint64_t keep_counting = 0x40004;
constexpr std::uint64_t counters = 0x41000;

std::vector<std::uint64_t> read_counters(const PayloadMachine& machine, unsigned vcpus) {
    std::vector<std::uint64_t> values;
    for (unsigned i = 0; i < vcpus; ++i)
        values.push_back(machine.peek(counters + 8 * i));
    return values;
}

// Until every counter has moved past `before`, 10 s at most.
bool all_counted_on(const PayloadMachine& machine, const std::vector<std::uint64_t>& before) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (std::chrono::steady_clock::now() < deadline) {
        const auto now = read_counters(machine, static_cast<unsigned>(before.size()));
        if (std::equal(now.begin(), now.end(), before.begin(), std::greater<>{}))
            return true;
        std::this_thread::yield();
    }
    return false;
}

}  // namespace

TEST_CASE("INIT and SIPI start every processor, each with its own APIC id") {
    for (const unsigned vcpus : {2U, 4U}) {
        CAPTURE(vcpus);
        PayloadMachine machine(smp_payload(), vcpus);
        machine.poke32(wanted_processors, vcpus - 1);
        machine.start();
        REQUIRE(machine.wait_until_done());
        auto reports = machine.wait_for_reports(vcpus);
        std::sort(reports.begin(), reports.end());
        Reports expected;
        for (unsigned id = 1; id < vcpus; ++id)
            expected.push_back(id);
        expected.push_back(0x100);
        CHECK(reports == expected);
    }
}

TEST_CASE("a paused machine stands still, and goes on where it was") {
    PayloadMachine machine(spin_payload());
    machine.start();
    REQUIRE(machine.wait_for_reports(1) == Reports{1});
    for (int round = 0; round < 20; ++round) {
        REQUIRE(all_counted_on(machine, read_counters(machine, 1)));
        machine.vcpus->pause();
        const auto registers = machine.vcpus->vcpu(0).registers();
        const auto before = machine.peek(counters);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        CHECK(machine.peek(counters) == before);
        const auto again = machine.vcpus->vcpu(0).registers();
        REQUIRE(registers);
        REQUIRE(again);
        CHECK(registers->rip == again->rip);
        machine.vcpus->resume();
    }
    CHECK(all_counted_on(machine, read_counters(machine, 1)));
}

TEST_CASE("no storm of pauses and kicks loses an order or a count") {
    PayloadMachine machine(smp_payload(), 4);
    machine.poke32(wanted_processors, 3);
    machine.poke32(keep_counting, 1);
    machine.start();
    REQUIRE(machine.wait_for_reports(4).size() == 4);
    for (int round = 0; round < 200; ++round) {
        machine.vcpus->pause();
        machine.vcpus->pause();
        const auto states = machine.vcpus->states();
        REQUIRE(std::count(states.begin(), states.end(), kvm::VcpuState::Running) == 0);
        machine.vcpus->resume();
        if (round % 3 == 0)
            machine.vcpus->resume();
    }
    CHECK(all_counted_on(machine, read_counters(machine, 4)));
    machine.vcpus->stop();
    const auto last = read_counters(machine, 4);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    CHECK(read_counters(machine, 4) == last);
    machine.vcpus->resume();  // nothing to run any more
    machine.vcpus->pause();
}

TEST_CASE("a machine that never started can be paused and destroyed") {
    PayloadMachine machine(spin_payload(), 2);
    machine.vcpus->pause();
    CHECK(machine.vcpus->states() == std::vector{kvm::VcpuState::Created, kvm::VcpuState::Created});
}

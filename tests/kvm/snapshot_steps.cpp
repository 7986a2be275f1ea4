#include "tests/kvm/snapshot_steps.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <thread>

namespace masu::test {

void run_a_while(SnapshotMachine& machine, std::mt19937& random) {
    REQUIRE(machine.machine().resume());
    CHECK(machine.run_for(1 + random() % 8));
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 2000));
    REQUIRE(machine.machine().pause());
}

RestoreSource source_of(const std::string& path, ClockPolicy clock) {
    auto state = snapshot::load_state(path + "/state");
    REQUIRE_MESSAGE(state, state.error().message);
    return {.state = std::move(*state), .memory_path = path + "/memory", .clock = clock};
}

void check_goes_on(SnapshotMachine& copy) {
    const auto before = copy.state();
    REQUIRE(copy.machine().start());
    CHECK(copy.run_for(4));
    REQUIRE(copy.machine().pause());
    CHECK(copy.state().mismatch == 0);
    CHECK(copy.state().iterations >= before.iterations + 3 * 16);
}

}  // namespace masu::test

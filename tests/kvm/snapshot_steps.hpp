// Steps that tests of snapshots share, with doctest's checks.
#pragma once

#include <random>
#include <string>

#include "tests/kvm/snapshot_machine.hpp"

namespace masu::test {

// Resumes a paused machine, stops it again at a moment that nobody chose.
void run_a_while(SnapshotMachine& machine, std::mt19937& random);

// The snapshot in directory `path`, to be restored.
[[nodiscard]] RestoreSource source_of(const std::string& path,
                                      ClockPolicy clock = ClockPolicy::Continue);

// A machine that was restored and not started yet goes on with its work, without an error.
void check_goes_on(SnapshotMachine& copy);

}  // namespace masu::test

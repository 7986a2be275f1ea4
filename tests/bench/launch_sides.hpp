// The two sides that the launch benchmark compares: bare ioctls, and Masu.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.hpp"
#include "base/fd.hpp"
#include "tests/bench/launch_times.hpp"
#include "tests/kvm/clone_template.hpp"

namespace masu::bench {

// Where the programs lie, and how Masu's is run.
struct Programs {
    std::string floor;
    std::string masu_vmm;
    std::string folder;       // the copies' overlays and sockets
    jail::Options jail = {};  // of Masu's
};

// Launches of one level, so many at once. Errors end the benchmark.
class Side {
  public:
    virtual ~Side() = default;
    // Everything that may be done before the trigger.
    virtual void prepare() = 0;
    // The trigger, and all that follows, to the end of every VM.
    [[nodiscard]] virtual std::vector<LaunchTimes> launch_all() = 0;
};

// `level`: as launch-floor calls it.
[[nodiscard]] std::unique_ptr<Side> make_floor(const test::CloneTemplate& from,
                                               const Programs& programs, std::string level,
                                               std::size_t count);
[[nodiscard]] std::unique_ptr<Side> make_masu(const test::CloneTemplate& from,
                                              const Programs& programs, Level level,
                                              std::size_t count);

// Memory that the host has less with so many copies running, divided by their number, in KiB.
[[nodiscard]] double memory_per_clone(const test::CloneTemplate& from, const Programs& programs,
                                      std::size_t count);

}  // namespace masu::bench

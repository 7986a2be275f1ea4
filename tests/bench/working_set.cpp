// working-set [N]: how long a restored guest takes from the trigger until it has written to 1024
// pages, with and without a recorded working set, in turn; medians and their ratio. On any
// /dev/kvm.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "base/bytes.hpp"
#include "tests/kvm/payloads.hpp"
#include "tests/kvm/snapshot_machine.hpp"
#include "vmm/snapshot/save.hpp"
#include "vmm/snapshot/working_set.hpp"

namespace masu::test {
namespace {

template <class T>
T require(Result<T> result) {
    if (!result) {
        std::fprintf(stderr, "working-set: %s\n", result.error().message.c_str());
        std::exit(1);
    }
    if constexpr (!std::is_void_v<T>)
        return std::move(*result);
}

const SystemClock system_clock;
// Two more passes: the first may have been half done when it was saved.
constexpr std::uint64_t passes = 2;

std::uint64_t passes_of(const SnapshotMachine& machine) {
    return machine.state().iterations;
}

void wait_for(const SnapshotMachine& machine, std::uint64_t count) {
    while (passes_of(machine) < count)
        std::this_thread::yield();
}

struct Template {
    PayloadFiles files{pages_payload()};
    std::string path = files.folder() / "snapshot";
    Template() {
        SnapshotMachine original(files.config());
        require(original.machine().start());
        wait_for(original, passes);
        require(original.machine().pause());
        const auto state = original.save();
        require(snapshot::save_directory(state, original.machine().ram(), files.config(), path));
    }
    [[nodiscard]] RestoreSource source() const {
        return {.state = require(snapshot::load_state(path + "/state")),
                .memory_path = path + "/memory"};
    }
};

snapshot::PageList record(const Template& from) {
    SnapshotMachine machine(from.files.config(), from.source());
    const auto before = passes_of(machine);
    require(machine.machine().start());
    wait_for(machine, before + passes);
    require(machine.machine().pause());
    return require(snapshot::look_at_working_set(machine.machine().ram(), {}));
}

double launch(const Template& from, const snapshot::PageList* list) {
    const auto trigger = system_clock.now();
    auto source = from.source();
    if (list != nullptr)
        source.working_set = *list;
    SnapshotMachine machine(from.files.config(), std::move(source));
    const auto before = passes_of(machine);
    require(machine.machine().start());
    wait_for(machine, before + passes);
    return static_cast<double>(system_clock.now() - trigger) / 1e6;
}

double median(std::vector<double> values) {
    std::ranges::sort(values);
    return values[values.size() / 2];
}

int run(std::size_t rounds) {
    const Template from;
    const auto list = record(from);
    std::vector<double> without;
    std::vector<double> with;
    for (std::size_t round = 0; round < rounds; ++round) {
        without.push_back(launch(from, nullptr));
        with.push_back(launch(from, &list));
    }
    std::printf("pages listed: %llu\nwithout: %.3f ms\nwith:    %.3f ms\nratio:   %.2f\n",
                static_cast<unsigned long long>(list.pages()), median(without), median(with),
                median(with) / median(without));
    return 0;
}

}  // namespace
}  // namespace masu::test

int main(int count, char** arguments) {
    const auto rounds = count > 1 ? std::strtoul(arguments[1], nullptr, 10) : 50;
    if (rounds == 0) {
        std::fprintf(stderr, "usage: working-set [N]: launches of each kind (default 50)\n");
        return 2;
    }
    return masu::test::run(rounds);
}

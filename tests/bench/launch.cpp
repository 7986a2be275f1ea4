// launch [N]...: how long a clone takes from the trigger to its first exit, beside the bare ioctls
// that any monitor must make, measured in the same run. On any /dev/kvm.
//
// Each launch is a process of its own, forked ahead. "fresh" does all its work after the trigger,
// "prepared" has made its machine before and only sets vCPU state and runs; "floor" rows do the
// same with nothing but ioctls: one slot, one vCPU, no device.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <thread>
#include <vector>

#include "base/bytes.hpp"
#include "tests/kvm/payloads.hpp"
#include "tests/kvm/snapshot_machine.hpp"
#include "vmm/kvm/vcpu_state.hpp"
#include "vmm/kvm/vm.hpp"
#include "vmm/snapshot/memory_file.hpp"
#include "vmm/snapshot/save.hpp"

namespace masu::test {
namespace {

template <class T>
T require(Result<T> result) {
    if (!result) {
        std::fprintf(stderr, "launch: %s\n", result.error().message.c_str());
        std::exit(1);
    }
    if constexpr (!std::is_void_v<T>)
        return std::move(*result);
}

const SystemClock system_clock;

struct Template {
    PayloadFiles files{out_payload()};
    std::string path = files.folder() / "snapshot";
    Template() {
        SnapshotMachine original(files.config());
        require(original.machine().start());
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        require(original.machine().pause());
        auto state = original.save();
        require(snapshot::save_directory(state, original.machine().ram(), files.config(), path));
    }
};

// One launch, in its steps; each is made in its own process.
class Launch {
  public:
    virtual ~Launch() = default;
    virtual void prepare() = 0;                   // what may be done before the trigger
    virtual Nanoseconds run_to_first_exit() = 0;  // when that was
    virtual void tear_down() = 0;
};

class MasuLaunch final : public Launch {
  public:
    MasuLaunch(const Template& from, bool ahead) : from_(from), ahead_(ahead) {}
    void prepare() override {
        if (ahead_)
            restore();
    }
    Nanoseconds run_to_first_exit() override {
        if (!machine_)
            restore();
        require(machine_->machine().start());
        for (;;) {
            if (const auto at = machine_->first_exit())
                return *at;
            std::this_thread::yield();
        }
    }
    void tear_down() override { machine_.reset(); }

  private:
    void restore() {
        machine_.emplace(
            from_.files.config(),
            RestoreSource{.state = require(snapshot::load_state(from_.path + "/state")),
                          .memory_path = from_.path + "/memory"});
    }
    const Template& from_;
    bool ahead_;
    std::optional<SnapshotMachine> machine_;
};

class BareLaunch final : public Launch {
  public:
    BareLaunch(const Template& from, bool ahead)
        : ahead_(ahead),
          memory_(from.path + "/memory"),
          state_(require(snapshot::load_state(from.path + "/state"))) {}
    void prepare() override {
        if (ahead_)
            make();
    }
    Nanoseconds run_to_first_exit() override {
        if (!vcpu_)
            make();
        require(kvm::restore_registers(*kvm_, *vcpu_, state_.vcpus[0].registers, 0));
        std::ignore = vcpu_->run();
        return system_clock.now();
    }
    void tear_down() override {
        vcpu_.reset();
        vm_.reset();
        ram_.reset();
    }

  private:
    void make() {
        kvm_.emplace(require(kvm::Kvm::open()));
        ram_.emplace(require(snapshot::map_memory(memory_, state_.memory_bytes)));
        vm_ = require(kvm::Vm::create(*kvm_));
        require(vm_->map_memory(ram_->memory()));
        vcpu_.emplace(require(kvm::Vcpu::create(*kvm_, *vm_, 0)));
        require(vcpu_->set_cpuid(state_.vcpus[0].cpuid));
    }
    bool ahead_;
    std::string memory_;
    snapshot::MachineState state_;
    std::optional<kvm::Kvm> kvm_;
    std::optional<kvm::GuestRam> ram_;
    std::unique_ptr<kvm::Vm> vm_;
    std::optional<kvm::Vcpu> vcpu_;
};

struct Times {
    Nanoseconds trigger = 0;
    Nanoseconds first_exit = 0;
    Nanoseconds teardown = 0;
};

// `count` processes, prepared, then triggered at once; what each measured.
template <class Make>
std::vector<Times> burst(std::size_t count, Make make) {
    auto shared = require(Mapping::create("results", count * sizeof(Times), PROT_READ | PROT_WRITE,
                                          MAP_SHARED | MAP_ANONYMOUS));
    auto* const times = reinterpret_cast<Times*>(shared.data());
    int ready[2];
    int go[2];
    if (::pipe2(ready, O_CLOEXEC) < 0 || ::pipe2(go, O_CLOEXEC) < 0)
        std::exit(1);
    std::vector<pid_t> children;
    for (std::size_t i = 0; i < count; ++i) {
        const auto child = ::fork();
        if (child != 0) {
            children.push_back(child);
            continue;
        }
        ::close(go[1]);
        auto launch = make();
        launch->prepare();
        char byte = 0;
        std::ignore = ::write(ready[1], &byte, 1);
        std::ignore = ::read(go[0], &byte, 1);  // the end of file is the trigger
        times[i].first_exit = launch->run_to_first_exit();
        const auto start = system_clock.now();
        launch->tear_down();
        times[i].teardown = system_clock.now() - start;
        ::_exit(0);
    }
    char byte = 0;
    for (std::size_t i = 0; i < count; ++i)
        std::ignore = ::read(ready[0], &byte, 1);
    // Let those that are ready fall asleep, as a pool's workers do.
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const auto trigger = system_clock.now();
    ::close(go[1]);
    for (const auto child : children)
        ::waitpid(child, nullptr, 0);
    ::close(go[0]);
    ::close(ready[0]);
    ::close(ready[1]);
    std::vector<Times> results(times, times + count);
    for (auto& result : results)
        result.trigger = trigger;
    return results;
}

double percentile(std::vector<double> values, double share) {
    std::ranges::sort(values);
    const auto index = static_cast<std::size_t>(share * static_cast<double>(values.size() - 1));
    return values[index];
}

struct Row {
    double p50 = 0;
    double p99 = 0;
    double teardown_p50 = 0;
};

template <class Make>
Row measure(std::size_t at_once, Make make) {
    constexpr std::size_t launches = 200;
    std::vector<double> times;
    std::vector<double> ends;
    const auto rounds = std::max<std::size_t>(3, launches / at_once / (at_once == 1 ? 4 : 2));
    for (std::size_t round = 0; round < rounds; ++round)
        for (const auto& one : burst(at_once, make)) {
            times.push_back(static_cast<double>(one.first_exit - one.trigger) / 1e6);
            ends.push_back(static_cast<double>(one.teardown) / 1e6);
        }
    return {percentile(times, 0.5), percentile(times, 0.99), percentile(ends, 0.5)};
}

void print(const char* what, std::size_t at_once, const Row& row, const Row& floor) {
    std::printf("%-16s %7zu %9.3f %9.3f %9.3f %11.2f %11.2f\n", what, at_once, row.p50, row.p99,
                row.teardown_p50, row.p50 / floor.p50, row.p99 / floor.p99);
    std::fflush(stdout);
}

int run(const std::vector<std::size_t>& counts) {
    const Template from;
    std::printf("%-16s %7s %9s %9s %9s %11s %11s\n", "launch", "at once", "p50 ms", "p99 ms",
                "end ms", "p50/floor", "p99/floor");
    for (const auto count : counts)
        for (const bool ahead : {false, true}) {
            const auto floor =
                measure(count, [&] { return std::make_unique<BareLaunch>(from, ahead); });
            print(ahead ? "floor, prepared" : "floor, fresh", count, floor, floor);
            const auto masu =
                measure(count, [&] { return std::make_unique<MasuLaunch>(from, ahead); });
            print(ahead ? "masu, prepared" : "masu, fresh", count, masu, floor);
        }
    return 0;
}

}  // namespace
}  // namespace masu::test

int main(int count, char** arguments) {
    std::vector<std::size_t> counts;
    for (int i = 1; i < count; ++i)
        counts.push_back(std::strtoul(arguments[i], nullptr, 10));
    if (counts.empty())
        counts = {1, 8, 32, 100};
    if (std::ranges::find(counts, 0U) != counts.end()) {
        std::fprintf(stderr, "usage: launch [N]...: clones at once (default 1 8 32 100)\n");
        return 2;
    }
    return masu::test::run(counts);
}

#include <doctest/doctest.h>
#include <fcntl.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include "base/bytes.hpp"
#include "tests/kvm/snapshot_steps.hpp"
#include "vmm/kvm/cpu_template.hpp"
#include "vmm/kvm/host_identity.hpp"
#include "vmm/kvm/kvm.hpp"
#include "vmm/layout.hpp"
#include "vmm/snapshot/memory_file.hpp"
#include "vmm/snapshot/save.hpp"

using namespace masu;
using namespace masu::test;

namespace {

constexpr std::size_t lapic_current_count = 0x390;

// Takes out what time alone changes: TSC, kvmclock, the timer's count, and the announcement of the
// new identity.
snapshot::MachineState timeless(snapshot::MachineState state) {
    state.wall_time = 0;
    state.guest_clock = 0;
    state.platform.ged_pending &= ~std::to_underlying(legacy::GedEvent::VmGenerationId);
    for (auto& vcpu : state.vcpus) {
        for (auto& msr : vcpu.registers.msrs)
            if (msr.index == kvm::msr_tsc)
                msr.data = 0;
        std::fill_n(vcpu.registers.lapic.regs + lapic_current_count, 4, 0);
    }
    return state;
}

std::uint64_t tsc_of(const snapshot::MachineState& state) {
    for (const auto& msr : state.vcpus[0].registers.msrs)
        if (msr.index == kvm::msr_tsc)
            return msr.data;
    return 0;
}

// A software KVM may show its guests the host's TSC, whatever is written to it.
bool host_moves_tsc() {
    const auto kvm = kvm::Kvm::open();
    const auto vm = kvm::Vm::create(*kvm);
    auto vcpu = kvm::Vcpu::create(*kvm, **vm, 0);
    constexpr std::uint64_t far = 1ULL << 62;
    kvm::VcpuRegisters registers = *kvm::save_registers(*kvm, *vcpu, {{kvm::msr_tsc}});
    if (registers.msrs.empty())
        return false;
    registers.msrs[0].data = far;
    return kvm::restore_registers(*kvm, *vcpu, registers, 0) &&
           kvm::save_registers(*kvm, *vcpu, {{kvm::msr_tsc}})->msrs[0].data >= far;
}

// Byte by byte, the VM generation ID apart.
bool same_memory(const kvm::GuestRam& a, const kvm::GuestRam& b) {
    constexpr std::size_t id = layout::generation_id;
    constexpr std::size_t id_size = 16;
    return std::ranges::equal(a.bytes().first(id), b.bytes().first(id)) &&
           std::ranges::equal(a.bytes().subspan(id + id_size), b.bytes().subspan(id + id_size));
}

// Saves a paused machine into `path`.
snapshot::MachineState save_to(SnapshotMachine& source, const VmConfig& config,
                               const std::string& path) {
    auto state = source.save();
    const auto saved = snapshot::save_directory(state, source.machine().ram(), config, path);
    REQUIRE_MESSAGE(saved, saved.error().message);
    return state;
}

// Lets a new machine run a little, and saves it, paused, into `path`.
snapshot::MachineState run_and_save(SnapshotMachine& original, const VmConfig& config,
                                    const std::string& path) {
    REQUIRE(original.machine().start());
    REQUIRE(original.run_for(2));
    REQUIRE(original.machine().pause());
    return save_to(original, config, path);
}

// Why no machine was made of these; empty: one was.
template <class... Arguments>
std::string refusal_of(Arguments&&... arguments) {
    try {
        const SnapshotMachine machine(std::forward<Arguments>(arguments)...);
    } catch (const std::exception& error) {
        return error.what();
    }
    return {};
}

}  // namespace

TEST_CASE("a payload stopped anywhere goes on in a restored machine, and is saved the same again") {
    const PayloadFiles files;
    std::mt19937 random(5);
    SnapshotMachine original(files.config());
    REQUIRE(original.machine().start());
    REQUIRE(original.run_for(2));
    for (int round = 0; round < 12; ++round) {
        run_a_while(original, random);
        const auto path = files.folder() / "snapshot";
        const auto saved = save_to(original, files.config(), path);
        SnapshotMachine copy(files.config(), source_of(path));
        const auto again = copy.save();
        CHECK(snapshot::encode(timeless(again)) == snapshot::encode(timeless(saved)));
        CHECK(same_memory(original.machine().ram(), copy.machine().ram()));
        check_goes_on(copy);
        std::filesystem::remove_all(path);
    }
    CHECK(original.state().mismatch == 0);
    CHECK(original.state().ticks > 0);
}

TEST_CASE("timers go on in a restored machine") {
    const PayloadFiles files;
    SnapshotMachine original(files.config());
    run_and_save(original, files.config(), files.folder() / "snapshot");
    SnapshotMachine copy(files.config(), source_of(files.folder() / "snapshot"));
    const auto before = copy.state().ticks;
    REQUIRE(copy.machine().start());
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (copy.state().ticks < before + 3 && std::chrono::steady_clock::now() < deadline)
        copy.loop().run_once(1);
    CHECK(copy.state().ticks >= before + 3);
    CHECK(copy.state().mismatch == 0);
}

TEST_CASE("the clocks of a restored machine go on, or skip the time that has passed") {
    const PayloadFiles files;
    SnapshotMachine original(files.config());
    const auto path = files.folder() / "snapshot";
    const auto saved = run_and_save(original, files.config(), path);
    // As if it had been saved an hour ago.
    constexpr std::uint64_t hour = 3600ULL * 1'000'000'000;
    for (const auto policy : {ClockPolicy::Continue, ClockPolicy::Realtime}) {
        auto source = source_of(path, policy);
        source.state.wall_time -= hour;
        SnapshotMachine copy(files.config(), std::move(source));
        const auto again = copy.save();
        const auto passed = policy == ClockPolicy::Realtime ? hour : 0;
        CHECK(again.guest_clock >= saved.guest_clock + passed);
        CHECK(again.guest_clock < saved.guest_clock + passed + hour / 2);
        const auto khz = saved.vcpus[0].registers.tsc_khz;
        if (!host_moves_tsc())
            continue;
        const auto ticks = passed / 1'000'000 * khz;
        CHECK(tsc_of(again) >= tsc_of(saved) + ticks);
        CHECK(tsc_of(again) < tsc_of(saved) + ticks + hour / 2'000'000 * khz);
    }
}

TEST_CASE("a machine of a CPU template is saved with its CPU, and goes on with that") {
    const auto supported = kvm::Kvm::open()->supported_cpuid();
    REQUIRE(supported);
    const PayloadFiles files;
    for (const auto model :
         {CpuTemplate::X86_64_v2, CpuTemplate::X86_64_v3, CpuTemplate::X86_64_v4}) {
        CAPTURE(kvm::to_string(model));
        auto config = files.config();
        config.machine.cpu_template = model;
        if (const auto missing = kvm::missing_for(*supported, model); !missing.empty()) {
            const auto refusal = refusal_of(config);
            CHECK(refusal.contains(kvm::to_string(model)));
            for (const auto& name : missing)
                CHECK(refusal.contains(name));
            continue;
        }
        SnapshotMachine original(config);
        const auto path = files.folder() / "of-template";
        const auto saved = run_and_save(original, config, path);
        CHECK(kvm::level_of(saved.vcpus[0].cpuid) == model);
        SnapshotMachine copy(config, source_of(path));
        CHECK(snapshot::encode(timeless(copy.save())) == snapshot::encode(timeless(saved)));
        check_goes_on(copy);
        std::filesystem::remove_all(path);
    }
}

TEST_CASE("another host is asked for all that the guest was shown, and this one not again") {
    const PayloadFiles files;
    SnapshotMachine original(files.config());
    const auto path = files.folder() / "snapshot";
    const auto saved = run_and_save(original, files.config(), path);
    CHECK(saved.host == kvm::host_identity(*kvm::Kvm::open()));
    const auto with_new_feature = [&] {
        auto source = source_of(path);
        // Whatever the host: no CPU has a feature that was never given a name.
        auto& leaves = source.state.vcpus[0].cpuid;
        const auto leaf = std::ranges::find(leaves, 7U, &kvm_cpuid_entry2::function);
        REQUIRE(leaf != leaves.end());
        leaf->ecx |= 1U << 15;
        return source;
    };
    auto source = with_new_feature();
    CHECK(source.state.host == saved.host);
    CHECK(refusal_of(files.config(), std::move(source)).empty());
    constexpr auto another = "another boot/1.2.3";
    source = with_new_feature();
    source.state.host = another;
    CHECK(refusal_of(files.config(), std::move(source)).contains("this host's CPU lacks"));
    source = source_of(path);
    source.state.host = another;
    SnapshotMachine asked(files.config(), std::move(source));
    check_goes_on(asked);
}

TEST_CASE("many clones of one snapshot differ in nothing but their identity") {
    const PayloadFiles files;
    SnapshotMachine original(files.config());
    REQUIRE(original.machine().start());
    REQUIRE(original.run_for(20));
    REQUIRE(original.machine().pause());
    const auto path = files.folder() / "snapshot";
    const auto saved = save_to(original, files.config(), path);
    const auto expected = snapshot::encode(timeless(saved));
    std::vector<std::array<std::byte, 16>> identities;
    std::mutex mutex;
    // Their ends wait for grace periods of the host's kernel; several at once make that short.
    constexpr int threads = 25;
    constexpr int clones_each = 40;
    std::atomic<int> good{0};
    std::vector<std::jthread> workers;
    for (int worker = 0; worker < threads; ++worker)
        workers.emplace_back([&] {
            for (int i = 0; i < clones_each; ++i) {
                const auto state = snapshot::load_state(path + "/state");
                SnapshotMachine clone(files.config(),
                                      {.state = *state, .memory_path = path + "/memory"});
                const bool same = snapshot::encode(timeless(clone.save())) == expected;
                const auto memory = clone.machine().ram().memory();
                const auto identity =
                    memory.load<std::array<std::byte, 16>>(GuestAddress{layout::generation_id});
                const bool runs =
                    clone.machine().start() && clone.run_for(1) && clone.machine().pause();
                const std::lock_guard lock(mutex);
                good += same && runs && clone.state().mismatch == 0;
                identities.push_back(*identity);
            }
        });
    workers.clear();
    CHECK(good == threads * clones_each);
    std::ranges::sort(identities);
    CHECK(std::ranges::adjacent_find(identities) == identities.end());
}

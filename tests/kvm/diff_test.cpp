// Differential and live saves: whatever the guest and its devices wrote is in them.
#include <doctest/doctest.h>

#include <algorithm>
#include <random>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "tests/kvm/snapshot_steps.hpp"
#include "vmm/snapshot/collapse.hpp"
#include "vmm/snapshot/live_save.hpp"
#include "vmm/snapshot/memory_file.hpp"
#include "vmm/snapshot/save.hpp"

using namespace masu;
using namespace masu::test;
using snapshot::MemoryForm;

namespace {

constexpr std::size_t used_ring_page = 0x52;  // only the device writes there
constexpr std::size_t memory_limit = 128 * MiB;

VmConfig tracking(const PayloadFiles& files) {
    auto config = files.config();
    config.machine.track_dirty_pages = true;
    return config;
}

snapshot::SaveResult save_to(SnapshotMachine& machine, const VmConfig& config,
                             const std::string& path, const snapshot::MemoryPlan& plan = {}) {
    const auto state = machine.save();
    auto saved = snapshot::save_directory(state, machine.machine().ram(), config, path, {}, plan);
    REQUIRE_MESSAGE(saved, saved.error().message);
    return std::move(*saved);
}

std::string memory_of(const std::string& path) {
    auto bytes = read_file(path + "/memory", memory_limit);
    REQUIRE_MESSAGE(bytes, bytes.error().message);
    return std::move(*bytes);
}

bool same_as(const kvm::GuestRam& ram, const std::string& file) {
    return std::ranges::equal(std::as_bytes(std::span(file)), ram.bytes());
}

void restore_and_run(const PayloadFiles& files, const std::string& path) {
    SnapshotMachine copy(files.config(), source_of(path));
    check_goes_on(copy);
}

}  // namespace

TEST_CASE("a base with differences over it is a whole save, byte for byte, at any moment") {
    const PayloadFiles files;
    const auto config = tracking(files);
    std::mt19937 random(7);
    SnapshotMachine machine(config);
    auto& log = machine.machine();
    const auto pages = log.ram().size() / guest_page;
    REQUIRE(log.start());
    REQUIRE(machine.run_for(2));
    REQUIRE(log.pause());
    auto base = save_to(machine, config, files.folder() / "base");
    PageSet since_base(pages);
    PageSet since_parent(pages);
    REQUIRE(log.collect_writes(since_parent));
    auto parent = base.id;
    std::vector<std::string> chain{files.folder() / "base"};
    for (int round = 0; round < 8; ++round) {
        since_parent.clear();
        run_a_while(machine, random);
        // The devices come to rest first: what they finish belongs to it.
        std::ignore = machine.save();
        REQUIRE(log.collect_writes(since_parent));
        since_base.merge(since_parent);
        CHECK(since_parent.has(used_ring_page));
        CHECK(since_parent.count() < 64);
        const auto over_base = files.folder() / "over-base";
        save_to(machine, config, over_base,
                {.form = MemoryForm::OnBase, .base = base.memory.get(), .pages = &since_base});
        CHECK(same_as(log.ram(), memory_of(over_base)));
        const auto own = files.folder() / fmt::format("own-{}", round).c_str();
        parent = save_to(machine, config, own,
                         {.form = MemoryForm::OwnPages, .pages = &since_parent, .parent = parent})
                     .id;
        if (round % 3 == 2) {
            const auto stored = snapshot::collapse(own, chain, [](auto, auto) {});
            REQUIRE_MESSAGE(stored, stored.error().message);
            CHECK(same_as(log.ram(), memory_of(own)));
            restore_and_run(files, own);
        }
        chain.push_back(own);
        if (round % 3 == 2)
            chain = {own};
        std::filesystem::remove_all(over_base);
    }
    CHECK(machine.state().mismatch == 0);
}

TEST_CASE("without a log, a restored machine's own pages are the difference") {
    const PayloadFiles files;
    std::mt19937 random(9);
    SnapshotMachine original(files.config());
    REQUIRE(original.machine().start());
    REQUIRE(original.run_for(2));
    REQUIRE(original.machine().pause());
    const auto path = files.folder() / "base";
    save_to(original, files.config(), path);
    SnapshotMachine copy(files.config(), {.state = *snapshot::load_state(path + "/state"),
                                          .memory_path = path + "/memory"});
    REQUIRE(copy.machine().start());
    for (int round = 0; round < 4; ++round) {
        run_a_while(copy, random);
        std::ignore = copy.save();
        const auto& ram = copy.machine().ram();
        const auto written = snapshot::touched_pages(ram);
        CHECK(written.has(used_ring_page));
        CHECK(written.count() < 64);
        const auto over_base = files.folder() / "over-base";
        save_to(copy, files.config(), over_base,
                {.form = MemoryForm::OnBase, .base = ram.memfd(), .pages = &written});
        CHECK(same_as(ram, memory_of(over_base)));
        std::filesystem::remove_all(over_base);
    }
}

TEST_CASE("a machine saved while it runs is saved as it was in the pause") {
    const PayloadFiles files;
    SystemClock clock;
    for (const bool tracked : {false, true}) {
        const auto config = tracked ? tracking(files) : files.config();
        SnapshotMachine machine(config);
        REQUIRE(machine.machine().start());
        REQUIRE(machine.run_for(2));
        REQUIRE(machine.machine().log_writes(true));
        const auto path = files.folder() / (tracked ? "live-tracked" : "live");
        std::string in_the_pause;
        std::optional<Result<snapshot::SaveResult>> ended;
        snapshot::LiveSave save({.loop = machine.loop(),
                                 .clock = clock,
                                 .machine = machine.machine(),
                                 .stop_and_save = [&]() -> Result<snapshot::MachineState> {
                                     TRY(machine.machine().pause());
                                     auto state = machine.save();
                                     const auto bytes = machine.machine().ram().bytes();
                                     in_the_pause.assign(
                                         reinterpret_cast<const char*>(bytes.data()), bytes.size());
                                     return state;
                                 },
                                 .resume = [&] { return machine.machine().resume(); },
                                 .config = [&]() -> const VmConfig& { return config; },
                                 .ended = [&](Result<snapshot::SaveResult> result,
                                              const PageSet&) { ended = std::move(result); }},
                                {.path = path, .metadata = {}, .plan = {}, .pages = {}});
        const auto deadline = clock.now() + 30'000'000'000;
        while (!ended && clock.now() < deadline)
            machine.loop().run_once(1);
        REQUIRE(ended);
        REQUIRE_MESSAGE(*ended, ended->error().message);
        CHECK(memory_of(path) == in_the_pause);
        CHECK(save.progress().pause > 0);
        CHECK(save.progress().rounds >= 2);
        // Both go on.
        CHECK(machine.run_for(4));
        restore_and_run(files, path);
    }
}

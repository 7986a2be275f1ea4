// Saves and loads of the monitor on a fake machine: whole, differential, live, with a working set.
#include "vmm/monitor.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "tests/unit/vmm/monitor_bench.hpp"

using namespace masu;
using namespace masu::fake;

namespace {

// Changes a page of the guest's memory, and lets the log know.
void write_page(Record& record, std::size_t page, int value) {
    std::memset(record.ram.bytes().data() + page * guest_page, value, guest_page);
    record.written.add(page);
}

bool holds_memory(const std::string& directory, const kvm::GuestRam& ram) {
    const auto file = read_file(directory + "/memory", 128 * MiB);
    return file && std::ranges::equal(std::as_bytes(std::span(*file)), ram.bytes());
}

snapshot::SaveProgress progress_of(Monitor& monitor) {
    return std::get<snapshot::SaveProgress>(*monitor.apply(action::GetSaveProgress{}));
}

snapshot::SaveProgress wait_for_save(Bench& bench) {
    for (int turns = 0; turns < 10'000; ++turns) {
        if (progress_of(bench.monitor).state != snapshot::SaveState::Running)
            break;
        bench.loop->run_once(1);
    }
    return progress_of(bench.monitor);
}

}  // namespace

TEST_CASE("a snapshot needs a paused VM, and leaves it paused") {
    Bench bench;
    const SavedVm saved;
    make_savable(bench.record);
    CHECK(bench.refusal(saved.create()).contains("not possible before"));
    bench.start();
    CHECK(bench.refusal(saved.create()).contains("pause it first"));
    REQUIRE(bench.apply(action::Pause{}));
    CHECK(bench.apply(saved.create()));
    CHECK(bench.monitor.state() == VmState::Paused);
    CHECK(bench.record.count("save") == 1);
    CHECK(bench.apply(action::Resume{}));
}

TEST_CASE("a loaded snapshot brings its configuration, with the changes asked for") {
    const SavedVm saved;
    {
        Bench bench;
        make_savable(bench.record);
        bench.start();
        pause_and_save(bench, saved);
    }
    Bench bench;
    auto load = saved.load();
    load.drives = {{.drive_id = "a", .path_on_host = {}, .overlay_path = "/overlay"}};
    load.clock_realtime = true;
    CHECK(bench.refusal(load).empty());
    CHECK(bench.monitor.state() == VmState::Paused);
    CHECK(bench.record.count("restore " + saved.folder + "/memory") == 1);
    CHECK(bench.record.count("start") == 0);
    CHECK(bench.record.clock == ClockPolicy::Realtime);
    REQUIRE(bench.record.config.drives.size() == 1);
    CHECK(bench.record.config.drives[0].path_on_host == "/a");
    CHECK(bench.record.config.drives[0].overlay_path == "/overlay");
    REQUIRE(bench.record.config.boot_source);
    CHECK(bench.apply(action::Resume{}));
    CHECK(bench.record.count("start") == 1);
    CHECK(bench.refusal(saved.load()).contains("after the instance has started"));
}

TEST_CASE("a load that fails leaves the monitor as it was") {
    const SavedVm saved;
    {
        Bench bench;
        make_savable(bench.record);
        bench.start();
        pause_and_save(bench, saved);
    }
    Bench bench;
    auto load = saved.load();
    load.state_path = saved.folder + "/none";
    CHECK(bench.refusal(load).contains("/none"));
    load = saved.load();
    load.drives = {{.drive_id = "b", .path_on_host = "/x", .overlay_path = {}}};
    CHECK(bench.refusal(load).contains("no drive b"));
    bench.record.refuse_creation = true;
    CHECK(bench.refusal(saved.load()) == "no machine");
    bench.record.refuse_creation = false;
    bench.record.refuse_start = true;
    load = saved.load();
    load.resume = true;
    CHECK(bench.refusal(load) == "no start");
    CHECK(bench.record.alive == 0);
    bench.record.refuse_start = false;
    CHECK(bench.monitor.state() == VmState::NotStarted);
    CHECK(bench.apply(load));
    CHECK(bench.monitor.state() == VmState::Running);
}

TEST_CASE("a differential save builds on the one before, or says why there is none") {
    const SavedVm saved;
    Bench bench;
    make_savable(bench.record);
    REQUIRE(bench.apply(action::SetMachineConfig{{.mem_size_mib = 64, .track_dirty_pages = true}}));
    start_without_disks(bench);
    REQUIRE(bench.monitor.apply(action::Pause{}));
    const auto create = [&](const char* name, bool diff, bool own = false) {
        return action::CreateSnapshot{
            .directory = saved.folder + "/" + name, .diff = diff, .own_pages = own};
    };
    CHECK(bench.refusal(create("x", true, true)).contains("save it whole first"));
    write_page(bench.record, 1, 1);
    REQUIRE(bench.refusal(create("first", true)).empty());
    CHECK(progress_of(bench.monitor).form == snapshot::MemoryForm::Whole);
    write_page(bench.record, 2, 2);
    REQUIRE(bench.refusal(create("second", true)).empty());
    CHECK(progress_of(bench.monitor).form == snapshot::MemoryForm::OnBase);
    CHECK(progress_of(bench.monitor).memory_written == guest_page);
    CHECK(holds_memory(saved.folder + "/second", bench.record.ram));
    // One that fails forgets nothing.
    write_page(bench.record, 3, 3);
    CHECK(bench.refusal(create("second", true)).contains("exists already"));
    write_page(bench.record, 1, 0);
    REQUIRE(bench.refusal(create("own", true, true)).empty());
    CHECK(progress_of(bench.monitor).memory_written == 2 * guest_page);
    CHECK_FALSE(std::filesystem::exists(saved.folder + "/own/memory"));
    write_page(bench.record, 4, 4);
    REQUIRE(bench.refusal(create("third", true)).empty());
    CHECK(progress_of(bench.monitor).memory_written == 2 * guest_page);
    CHECK(holds_memory(saved.folder + "/third", bench.record.ram));
    // Two files hold the difference to the snapshot before, and nothing of theirs is a base.
    write_page(bench.record, 5, 5);
    auto files = saved.create();
    files.diff = true;
    REQUIRE(bench.refusal(files).empty());
    CHECK(progress_of(bench.monitor).memory_written == guest_page);
    REQUIRE(bench.refusal(create("whole", true)).empty());
    CHECK(progress_of(bench.monitor).form == snapshot::MemoryForm::Whole);
    Bench other;
    const auto load = action::LoadSnapshot{.directory = saved.folder + "/own",
                                           .state_path = saved.folder + "/own/state",
                                           .memory_path = saved.folder + "/own/memory"};
    CHECK(other.refusal(load).contains("masu snapshot collapse"));
}

TEST_CASE("a working set is recorded once, and used from then on") {
    const SavedVm saved;
    const auto directory = saved.folder + "/warm";
    {
        Bench bench;
        make_savable(bench.record);
        start_without_disks(bench);
        REQUIRE(bench.apply(action::Pause{}));
        REQUIRE(bench.refusal(action::CreateSnapshot{.directory = directory}).empty());
    }
    action::LoadSnapshot load{.directory = directory,
                              .state_path = directory + "/state",
                              .memory_path = directory + "/memory",
                              .resume = true,
                              .record_working_set_ms = 1000};
    {
        Bench bench;
        make_savable(bench.record);
        REQUIRE(bench.refusal(load).empty());
        CHECK_FALSE(bench.record.working_set);
        CHECK_FALSE(std::filesystem::exists(directory + "/working-set"));
        REQUIRE(bench.refusal(action::EndWorkingSet{}).empty());
        CHECK(std::filesystem::exists(directory + "/working-set"));
        CHECK(bench.refusal(action::EndWorkingSet{}).contains("no working set"));
        std::filesystem::remove(directory + "/working-set");
    }
    for (const bool guest_says_so : {false, true}) {
        Bench bench;
        make_savable(bench.record);
        REQUIRE(bench.refusal(load).empty());
        if (guest_says_so)
            bench.boot_timer.mark(Milestone::Init);
        else
            bench.clock.time += 1'000'000'000;
        for (int turns = 0; turns < 1000; ++turns) {
            bench.loop->run_once(1);
            if (std::filesystem::exists(directory + "/working-set"))
                break;
        }
        CHECK(std::filesystem::exists(directory + "/working-set"));
        if (!guest_says_so)
            std::filesystem::remove(directory + "/working-set");
    }
    load.record_working_set_ms.reset();
    {
        Bench bench;
        REQUIRE(bench.refusal(load).empty());
        CHECK(bench.record.working_set);
    }
    load.use_working_set = false;
    {
        Bench bench;
        REQUIRE(bench.refusal(load).empty());
        CHECK_FALSE(bench.record.working_set);
    }
    load.use_working_set = true;
    REQUIRE(write_file_atomically(directory + "/working-set", "MASUPAGE, but nothing else"));
    Bench bench;
    REQUIRE(bench.refusal(load).empty());
    CHECK_FALSE(bench.record.working_set);
}

TEST_CASE("a live save stops the guest for its end only, and holds what was written until then") {
    const SavedVm saved;
    Bench bench;
    make_savable(bench.record);
    start_without_disks(bench);
    write_page(bench.record, 7, 7);
    const action::CreateSnapshot live{.directory = saved.folder + "/live", .live = true};
    REQUIRE(bench.refusal(live).empty());
    CHECK(bench.record.count("log") == 1);
    CHECK(bench.refusal(live).contains("being made"));
    write_page(bench.record, 8, 8);
    const auto progress = wait_for_save(bench);
    CHECK_MESSAGE(progress.state == snapshot::SaveState::Done, progress.error);
    CHECK(progress.live);
    CHECK(bench.monitor.state() == VmState::Running);
    CHECK(bench.record.count("pause") == 1);
    CHECK(bench.record.count("resume") == 1);
    CHECK(bench.record.count("no log") == 1);
    CHECK(holds_memory(saved.folder + "/live", bench.record.ram));
    CHECK(snapshot::load_state(saved.folder + "/live/state"));

    // Refused in the middle, the guest goes on.
    REQUIRE(bench.refusal(live).empty());
    const auto failed = wait_for_save(bench);
    CHECK(failed.state == snapshot::SaveState::Failed);
    CHECK(failed.error.contains("exists already"));
    CHECK(bench.monitor.state() == VmState::Running);

    // A VM that ends takes its save along.
    const action::CreateSnapshot cut{.directory = saved.folder + "/cut", .live = true};
    REQUIRE(bench.refusal(cut).empty());
    bench.monitor.stop("enough");
    CHECK(bench.record.alive == 0);
    CHECK_FALSE(std::filesystem::exists(saved.folder + "/cut"));
    for (const auto& entry : std::filesystem::directory_iterator(saved.folder))
        CHECK_FALSE(entry.path().string().contains("partial"));
}

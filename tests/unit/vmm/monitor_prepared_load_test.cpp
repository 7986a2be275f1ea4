// Loads that the monitor prepares before they are asked for, and clones' own files.
#include "vmm/monitor.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "tests/unit/vmm/monitor_bench.hpp"

using namespace masu;
using namespace masu::fake;

namespace {

// A snapshot of a VM with a drive, an interface and a vsock, as a directory.
struct SavedClone {
    SavedVm saved;
    std::string directory = saved.folder + "/clone";
    std::vector<Fd> others;
    SavedClone() {
        write(saved.folder + "/disk", std::string(MiB, 'd'));
        Bench bench;
        make_savable(bench.record);
        REQUIRE(bench.apply(action::SetNetworkInterface{on_socket("eth0", others)}));
        REQUIRE(bench.apply(action::SetVsock{{.uds_path = saved.folder + "/first"}}));
        REQUIRE(bench.apply(action::SetBootSource{{.kernel_image_path = "/k"}}));
        REQUIRE(bench.apply(
            action::SetDrive{{.drive_id = "a", .path_on_host = saved.folder + "/disk"}}));
        REQUIRE(bench.apply(action::StartInstance{}));
        REQUIRE(bench.apply(action::Pause{}));
        REQUIRE(bench.refusal(action::CreateSnapshot{.directory = directory}).empty());
        std::filesystem::create_directory(saved.folder + "/own");
    }
    static void write(const std::string& path, const std::string& text) {
        REQUIRE(write_file_atomically(path, text));
    }
    [[nodiscard]] action::LoadSnapshot load(const char* vsock = "/copy") {
        action::LoadSnapshot load{.directory = directory,
                                  .state_path = directory + "/state",
                                  .memory_path = directory + "/memory"};
        load.interfaces = load_onto(saved, others).interfaces;
        load.overlay_folder = saved.folder + "/own";
        load.uds_path = saved.folder + vsock;
        return load;
    }
    [[nodiscard]] bool vsock_listens(const char* vsock = "/copy") const {
        return listens(saved.folder + vsock);
    }
    [[nodiscard]] long overlays() const {
        return std::distance(std::filesystem::directory_iterator(saved.folder + "/own"), {});
    }
};

}  // namespace

TEST_CASE("what can be judged before a load is refused when it is prepared") {
    const SavedVm saved;
    const auto prepare = action::PrepareLoad{saved.load()};
    Bench bench;
    CHECK(bench.refusal(prepare).contains(saved.folder + "/state"));
    make_savable(bench.record);
    start_without_disks(bench);
    pause_and_save(bench, saved);
    CHECK(bench.refusal(prepare).contains("not possible after the instance has started"));
    Bench other;
    other.record.refuse_creation = true;
    CHECK(other.refusal(prepare) == "no machine");
    other.record.refuse_creation = false;
    REQUIRE(other.refusal(saved.load()).empty());
    CHECK(other.record.calls.back() == "restore state");
}

TEST_CASE("a load takes the machine that was prepared for it, which nobody saw before") {
    SavedClone clone;
    auto load = clone.load();
    Bench bench;
    REQUIRE(bench.refusal(action::PrepareLoad{load}).empty());
    CHECK(bench.record.calls == std::vector<std::string>{"restore " + load.memory_path});
    CHECK(clone.vsock_listens());
    CHECK(bench.state() == VmState::NotStarted);
    const auto full = std::get<FullConfig>(*bench.monitor.apply(action::GetVmConfig{}));
    CHECK(full.vm.drives.empty());
    CHECK(bench.refusal(action::GetFirewall{"eth0"}).contains("eth0"));
    load.resume = true;  // is no other machine
    REQUIRE(bench.refusal(load).empty());
    CHECK(bench.record.calls ==
          std::vector<std::string>{"restore " + load.memory_path, "restore state", "start"});
    CHECK(bench.state() == VmState::Running);
    CHECK(bench.record.config.drives[0].overlay_path == clone.saved.folder + "/own/a.overlay");
    CHECK(std::get<FullConfig>(*bench.monitor.apply(action::GetVmConfig{})).vm.drives.size() == 1);
    CHECK(bench.apply(egress_only()));
    CHECK(clone.vsock_listens());
}

TEST_CASE("a load that asks for something else gets that, and of what was prepared nothing stays") {
    SavedClone clone;
    const auto prepared = clone.load();
    Bench bench;
    REQUIRE(bench.refusal(action::PrepareLoad{prepared}).empty());
    auto load = prepared;  // the interface's descriptor is the same
    load.uds_path = clone.saved.folder + "/another";
    REQUIRE(bench.refusal(load).empty());
    CHECK(bench.record.alive == 1);
    CHECK(bench.record.count("restore " + load.memory_path) == 2);
    CHECK_FALSE(clone.vsock_listens());
    CHECK(clone.vsock_listens("/another"));
}

TEST_CASE("what was prepared of a snapshot that has been replaced is made anew") {
    SavedClone clone;
    const auto load = clone.load();
    Bench bench;
    REQUIRE(bench.refusal(action::PrepareLoad{load}).empty());
    SavedClone::write(load.state_path, *read_file(load.state_path, MiB));
    REQUIRE(bench.refusal(load).empty());
    CHECK(bench.record.count("restore " + load.memory_path) == 2);
    CHECK(bench.record.alive == 1);
}

TEST_CASE("a machine that was prepared and is not loaded leaves nothing behind") {
    SavedClone clone;
    const auto load = clone.load();
    const auto expect_nothing = [&](const Bench& bench) {
        CHECK(bench.record.alive == 0);
        CHECK_FALSE(std::filesystem::exists(clone.saved.folder + "/copy"));
        CHECK(clone.overlays() == 0);
    };
    {
        Bench bench;
        REQUIRE(bench.refusal(action::PrepareLoad{load}).empty());
        // Opening the drive makes it, which the fake machine does not.
        SavedClone::write(clone.saved.folder + "/own/a.overlay", "overlay");
        SUBCASE("the monitor is stopped") {
            REQUIRE(bench.apply(action::Stop{}));
        }
        SUBCASE("the monitor is configured") {
            REQUIRE(bench.apply(action::SetEntropy{}));
        }
        SUBCASE("another document of metadata comes") {
            REQUIRE(bench.apply(action::PutMmds{"{}"}));
        }
        SUBCASE("another load cannot be prepared") {
            auto other = load;
            other.drives = {{.drive_id = "b", .path_on_host = "/x", .overlay_path = {}}};
            CHECK(bench.refusal(action::PrepareLoad{other}).contains("no drive b"));
        }
        SUBCASE("the load fails") {
            bench.record.refuse_state = true;
            CHECK(bench.refusal(load) == "no memory");
            CHECK(bench.state() == VmState::NotStarted);
        }
        expect_nothing(bench);
        // Its descriptor is there for another.
        REQUIRE(::fcntl(*load.interfaces[0].passt_fd, F_GETFD) == 0);
    }
    Bench bench;
    REQUIRE(bench.refusal(action::PrepareLoad{load}).empty());
    SavedClone::write(clone.saved.folder + "/own/a.overlay", "overlay");
    REQUIRE(bench.refusal(load).empty());
    CHECK(clone.overlays() == 1);
    CHECK(bench.record.alive == 1);
}

TEST_CASE("a file that was there is no clone's, and stays when the load is refused") {
    SavedClone clone;
    SavedClone::write(clone.saved.folder + "/own/a.overlay", "another's");
    Bench bench;
    CHECK(bench.refusal(clone.load()).contains("is there already"));
    CHECK(clone.overlays() == 1);
}

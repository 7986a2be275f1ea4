// Which files a snapshot's machine is let use.
#include "vmm/snapshot/loaded_files.hpp"
#include "vmm/snapshot/read_ahead.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>

using namespace masu;

namespace {

using Paths = std::vector<std::string>;

struct Saved {
    std::string folder = "/tmp/masu-loaded-test-XXXXXX";
    std::vector<VmmAction> config;
    action::LoadSnapshot load;

    Saved() {
        REQUIRE(::mkdtemp(folder.data()) != nullptr);
        load.directory = folder + "/snapshot";
        load.state_path = load.directory + "/state";
        load.memory_path = load.directory + "/memory";
        std::filesystem::create_directory(load.directory);
    }
    ~Saved() { std::filesystem::remove_all(folder); }
    std::string file(const std::string& name) const {
        std::ofstream(folder + "/" + name) << "content";
        return folder + "/" + name;
    }
    [[nodiscard]] jail::FileRules rules() const {
        auto files = snapshot::loaded_files(config, load);
        REQUIRE_MESSAGE(files, files.error().message);
        for (auto* paths : {&files->read, &files->write})
            std::ranges::sort(*paths);
        return *files;
    }
};

}  // namespace

TEST_CASE("a snapshot in a directory is read, and written where a working set is recorded there") {
    Saved saved;
    CHECK(saved.rules().read == Paths{saved.load.directory});
    CHECK(saved.rules().write.empty());
    saved.load.record_working_set_ms = 100;
    CHECK(saved.rules().read.empty());
    CHECK(saved.rules().write == Paths{saved.load.directory});
}

TEST_CASE("two files are those two, less memory that a handler or a descriptor brings") {
    Saved saved;
    saved.load.directory.clear();
    CHECK(saved.rules().read == Paths{saved.load.memory_path, saved.load.state_path});
    saved.load.memory_path = "/proc/self/fd/5";
    CHECK(saved.rules().read == Paths{saved.load.state_path});
    saved.load.memory_handler = "/run/handler";
    saved.load.memory_path.clear();
    CHECK(saved.rules().read == Paths{saved.load.state_path});
}

TEST_CASE("a memory file elsewhere is read beside the directory") {
    Saved saved;
    saved.load.memory_path = "/srv/memory";
    CHECK(saved.rules().read == Paths{"/srv/memory", saved.load.directory});
}

TEST_CASE("kernel and initrd are read for reboots, where they are there") {
    Saved saved;
    const auto kernel = saved.file("kernel");
    saved.config = {action::SetBootSource{
        {.kernel_image_path = kernel, .initrd_path = saved.folder + "/gone"}}};
    CHECK(saved.rules().read == Paths{kernel, saved.load.directory});
}

TEST_CASE("drives are used as the load has them") {
    Saved saved;
    const auto overlay = saved.file("old.overlay");
    saved.config = {
        action::SetDrive{{.drive_id = "iso", .path_on_host = "/srv/iso", .is_read_only = true}},
        action::SetDrive{{.drive_id = "raw", .path_on_host = "/srv/raw"}},
        action::SetDrive{
            {.drive_id = "top", .path_on_host = "/srv/base", .overlay_path = overlay}}};
    CHECK(saved.rules().read == Paths{"/srv/base", "/srv/iso", saved.load.directory});
    CHECK(saved.rules().write == Paths{"/srv/raw", overlay});
    // Another disk in place of one, and an overlay that is still to be made.
    saved.load.drives = {
        {.drive_id = "raw", .path_on_host = "/srv/mine", .overlay_path = std::nullopt},
        {.drive_id = "top", .path_on_host = std::nullopt, .overlay_path = "/srv/vm/new.overlay"}};
    CHECK(saved.rules().read == Paths{"/srv/base", "/srv/iso", saved.load.directory});
    CHECK(saved.rules().write == Paths{"/srv/mine", "/srv/vm/"});
}

TEST_CASE(
    "overlays of one's own lie over what the snapshot holds, and not over the saved VM's disk") {
    Saved saved;
    saved.load.overlay_folder = "/run/vm-1";
    saved.config = {
        action::SetDrive{{.drive_id = "iso", .path_on_host = "/srv/iso", .is_read_only = true}},
        action::SetDrive{{.drive_id = "raw", .path_on_host = "/srv/raw"}},
        action::SetDrive{
            {.drive_id = "top", .path_on_host = "/srv/base", .overlay_path = "/srv/top.overlay"}}};
    saved.file("snapshot/disk-raw.raw");
    saved.file("snapshot/disk-top.overlay");
    CHECK(saved.rules().read == Paths{"/srv/base", "/srv/iso", saved.load.directory});
    CHECK(saved.rules().write == Paths{"/run/vm-1", "/run/vm-1"});
}

TEST_CASE("a vsock's socket is made where the load says") {
    Saved saved;
    saved.config = {action::SetVsock{{.guest_cid = 3, .uds_path = "/run/saved.vsock"}}};
    CHECK(saved.rules().sockets == Paths{"/run/saved.vsock"});
    saved.load.uds_path = "/run/mine.vsock";
    CHECK(saved.rules().sockets == Paths{"/run/mine.vsock"});
}

TEST_CASE("what no load could mean is refused") {
    Saved saved;
    saved.load.uds_path = "/run/mine.vsock";
    CHECK_FALSE(snapshot::loaded_files(saved.config, saved.load));
    CHECK_FALSE(snapshot::read_state(saved.folder + "/none"));
}

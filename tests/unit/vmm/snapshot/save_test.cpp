// Snapshots on disk: whole or not at all.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "tests/map_memory.hpp"
#include "tests/unit/vmm/snapshot/made_state.hpp"
#include "vmm/snapshot/copy_file.hpp"
#include "vmm/snapshot/memory_file.hpp"
#include "vmm/snapshot/save.hpp"

using namespace masu;
using namespace masu::snapshot;
using namespace masu::snapshot::test;
namespace fs = std::filesystem;

namespace {

struct Folder {
    std::string path = "/tmp/masu-save-test-XXXXXX";
    Folder() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
    ~Folder() { fs::remove_all(path); }
    std::string operator/(const char* name) const { return path + "/" + name; }
    [[nodiscard]] std::size_t entries() const {
        return static_cast<std::size_t>(
            std::distance(fs::directory_iterator(path), fs::directory_iterator()));
    }
};

kvm::GuestRam made_ram() {
    auto ram = std::move(*kvm::GuestRam::create(16 * MiB, HugePages::None));
    for (std::size_t page = 0; page < 4096; page += 3)
        std::memset(ram.bytes().data() + page * 4096 + page % 4096,
                    static_cast<int>(page % 255 + 1), 1);
    return ram;
}

std::uint64_t blocks(const std::string& path) {
    struct stat status{};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

}  // namespace

TEST_CASE("memory goes to a sparse file and comes back byte by byte, private") {
    const Folder folder;
    auto ram = made_ram();
    const auto file = folder / "memory";
    const Fd fd(::open(file.c_str(), O_RDWR | O_CREAT, 0600));
    const auto written = write_memory(ram, fd.get(), file);
    REQUIRE(written);
    CHECK(*written == 1366 * 4096);
    CHECK(blocks(file) < 8 * MiB);
    auto back = masu::test::map_memory(file, ram.size());
    REQUIRE(back);
    CHECK(std::ranges::equal(back->bytes(), ram.bytes()));
    back->bytes()[5] = std::byte{9};
    auto third = masu::test::map_memory(file, ram.size());
    CHECK(third->bytes()[5] == ram.bytes()[5]);
    // Saved again from there it is the same.
    const auto second = folder / "second";
    const Fd other(::open(second.c_str(), O_RDWR | O_CREAT, 0600));
    REQUIRE(write_memory(*third, other.get(), second));
    CHECK(*read_file(second, 32 * MiB) == *read_file(file, 32 * MiB));
    CHECK_FALSE(masu::test::map_memory(file, ram.size() + MiB));
    CHECK_FALSE(masu::test::map_memory(folder / "none", ram.size()));
}

TEST_CASE("a directory holds state, memory, copies of disks and a manifest") {
    const Folder folder;
    std::ofstream(folder / "disk") << "content";
    std::ofstream(folder / "overlay") << "changes";
    VmConfig config;
    config.drives = {
        {.drive_id = "a", .path_on_host = folder / "disk"},
        {.drive_id = "b", .path_on_host = folder / "base", .overlay_path = folder / "overlay"},
        {.drive_id = "c", .path_on_host = folder / "iso", .is_read_only = true}};
    const auto path = folder / "snapshot";
    const auto state = made_state(Transport::Pci);
    const auto saved = save_directory(state, made_ram(), config, path, "mine");
    REQUIRE_MESSAGE(saved, saved.error().message);
    CHECK(*read_file(path + "/disk-a.raw", 100) == "content");
    CHECK(*read_file(path + "/disk-b.overlay", 100) == "changes");
    CHECK_FALSE(fs::exists(path + "/disk-c.raw"));
    CHECK(encode(*load_state(path + "/state")) == encode(state));
    const auto manifest = *read_file(path + "/manifest.json", 10000);
    CHECK(manifest.contains(R"("metadata":"mine")"));
    CHECK(manifest.contains(R"("kind":"reference")"));
    const auto again = save_directory(state, made_ram(), config, path);
    REQUIRE_FALSE(again);
    CHECK(again.error().message.contains("exists already"));
    CHECK(folder.entries() == 3);
}

TEST_CASE("a disk that cannot be copied leaves nothing behind") {
    const Folder folder;
    VmConfig config;
    config.drives = {{.drive_id = "a", .path_on_host = folder / "gone"}};
    const auto saved =
        save_directory(made_state(Transport::Pci), made_ram(), config, folder / "snapshot");
    REQUIRE_FALSE(saved);
    CHECK(saved.error().message.contains("drive a"));
    CHECK(folder.entries() == 0);
}

TEST_CASE("a full disk leaves the old files or none") {
    const Folder folder;
    const auto state = made_state(Transport::Pci);
    REQUIRE(save_files(state, made_ram(), folder / "state", folder / "memory"));
    const auto before = *read_file(folder / "memory", 32 * MiB);
    // The size limit of files stands for the full disk: both fail a write half-way.
    rlimit old{};
    ::getrlimit(RLIMIT_FSIZE, &old);
    ::signal(SIGXFSZ, SIG_IGN);
    for (const rlim_t most : {0UL, 4096UL, 100'000UL, 16 * MiB - 4096}) {
        const rlimit limit{most, old.rlim_max};
        ::setrlimit(RLIMIT_FSIZE, &limit);
        const auto files = save_files(state, made_ram(), folder / "state", folder / "memory");
        const auto directory = save_directory(state, made_ram(), {}, folder / "directory");
        ::setrlimit(RLIMIT_FSIZE, &old);
        CHECK_FALSE(files);
        CHECK_FALSE(directory);
        CHECK(folder.entries() == 2);
        CHECK(*read_file(folder / "memory", 32 * MiB) == before);
        CHECK(load_state(folder / "state"));
    }
}

TEST_CASE("killed at any moment, the directory is whole or not there") {
    const Folder folder;
    const auto path = folder / "snapshot";
    const auto state = made_state(Transport::Pci);
    int whole = 0;
    for (unsigned delay = 0; delay < 40; ++delay) {
        const auto child = ::fork();
        if (child == 0)
            ::_exit(save_directory(state, made_ram(), {}, path) ? 0 : 1);
        ::usleep(delay * delay * 50);
        ::kill(child, SIGKILL);
        ::waitpid(child, nullptr, 0);
        if (!fs::exists(path))
            continue;
        ++whole;
        CHECK(load_state(path + "/state"));
        CHECK(masu::test::map_memory(path + "/memory", 16 * MiB));
        CHECK(fs::exists(path + "/manifest.json"));
        fs::remove_all(path);
    }
    CHECK(whole < 40);
}

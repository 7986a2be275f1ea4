// Snapshots that were saved elsewhere and are taken in.
#include "tools/masu/snapshot_store.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>

#include "base/atomic_file.hpp"

using namespace masu;
using namespace masu::cli;
namespace fs = std::filesystem;

namespace {

class Folder {
  public:
    explicit Folder(const std::string& above) : path_(above + "/masu-store-test-XXXXXX") {
        REQUIRE(::mkdtemp(path_.data()) != nullptr);
    }
    ~Folder() { fs::remove_all(path_); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    std::string path_;
};

dev_t device_of(const std::string& path) {
    struct stat status{};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    return status.st_dev;
}

// A mebibyte of nothing, and some bytes behind it.
std::string save_in(const Folder& folder) {
    const auto saved = folder.path() + "/saved";
    fs::create_directory(saved);
    std::ofstream(saved + "/manifest.json") << "{}";
    std::ofstream memory(saved + "/memory");
    memory.seekp(1 << 20);
    memory << "last bytes";
    return saved;
}

void check_adopts(const Folder& from) {
    const Folder state("/tmp");
    const SnapshotStore store({.state = state.path(), .runtime = state.path()});
    REQUIRE(store.prepare("warm"));
    const auto saved = save_in(from);
    const auto adopted = store.adopt(saved, "warm");
    REQUIRE_MESSAGE(adopted, adopted.error().message);
    const auto kept = state.path() + "/snapshots/warm";
    CHECK(*read_file(kept + "/manifest.json", 100) == "{}");
    CHECK(read_file(kept + "/memory", 2 << 20)->ends_with("last bytes"));
    struct stat memory{};
    REQUIRE(::stat((kept + "/memory").c_str(), &memory) == 0);
    CHECK(memory.st_size == (1 << 20) + 10);
    CHECK(memory.st_blocks * 512 < 1 << 20);
    CHECK_FALSE(fs::exists(saved));
    CHECK(std::distance(fs::directory_iterator(state.path() + "/snapshots"), {}) == 1);
}

}  // namespace

TEST_CASE("what was saved on the same file system is moved") {
    check_adopts(Folder("/tmp"));
}

TEST_CASE("what was saved on another file system is copied, with its holes") {
    if (::access("/dev/shm", W_OK) < 0 || device_of("/dev/shm") == device_of("/tmp")) {
        MESSAGE("SKIP: /dev/shm is no file system of its own here");
        return;
    }
    check_adopts(Folder("/dev/shm"));
}

TEST_CASE("a name that is taken meanwhile stays whose it was") {
    const Folder state("/tmp");
    const SnapshotStore store({.state = state.path(), .runtime = state.path()});
    REQUIRE(store.prepare("warm"));
    fs::create_directory(state.path() + "/snapshots/warm");
    const Folder from("/tmp");
    const auto saved = save_in(from);
    const auto adopted = store.adopt(saved, "warm");
    REQUIRE_FALSE(adopted);
    CHECK(adopted.error().message.contains(saved));
    CHECK(fs::exists(saved + "/memory"));
}

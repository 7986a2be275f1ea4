// Capabilities, in children that give theirs up. As root only: nobody else has any.
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>

#include "tests/unit/vmm/jail/child.hpp"
#include "vmm/jail/capabilities.hpp"

using namespace masu;
using namespace masu::test;

namespace {

// By itself: inlined, GCC 12 takes the set for a pointer that the error's text is in.
[[gnu::noinline]] jail::Capabilities permitted() {
    const auto held = jail::permitted_capabilities();
    REQUIRE(held);
    return *held;
}

bool has_capabilities() {
    if (::geteuid() == 0 && permitted() != 0)
        return true;
    std::puts("SKIP capabilities: only root has any");
    return false;
}

// A file of another user's that root cannot read as a user.
class ForeignFile {
  public:
    ForeignFile() {
        std::ofstream(path) << "secret";
        ::chmod(path.c_str(), 0600);
        REQUIRE(::chown(path.c_str(), 1234, 1234) == 0);
    }
    ~ForeignFile() { std::filesystem::remove(path); }
    ForeignFile(const ForeignFile&) = delete;
    ForeignFile& operator=(const ForeignFile&) = delete;
    const std::string path = "/tmp/masu-jail-foreign-" + std::to_string(::getpid());
};

bool can_read(const std::string& path) {
    return ::open(path.c_str(), O_RDONLY | O_CLOEXEC) >= 0;
}

}  // namespace

TEST_CASE("what is not kept is gone, and does not come back") {
    if (!has_capabilities())
        return;
    const auto end = in_child([] {
        constexpr auto kept = jail::capability(CAP_NET_ADMIN);
        if (!jail::keep_capabilities(kept) || permitted() != kept)
            return 1;
        if (!jail::keep_capabilities(~jail::Capabilities{0}) || permitted() != kept)
            return 2;
        return jail::keep_capabilities(0) && permitted() == 0 ? 0 : 3;
    });
    CHECK(end.status == 0);
}

TEST_CASE("root without capabilities does not read other users' files") {
    if (!has_capabilities())
        return;
    const ForeignFile file;
    CHECK(in_child([&] { return can_read(file.path) ? 0 : 1; }).status == 0);
    const auto end = in_child([&] {
        return jail::give_up_set_up_capabilities({}, Log()) && !can_read(file.path) &&
                       permitted() == 0
                   ? 0
                   : 1;
    });
    CHECK(end.status == 0);
}

TEST_CASE("a VM on another user's disk keeps what its reboot needs, and nothing else") {
    if (!has_capabilities())
        return;
    const ForeignFile file;
    const auto end = in_child([&] {
        const std::array files{jail::ReopenedFile{.path = "/dev/null", .writable = true},
                               jail::ReopenedFile{.path = file.path, .writable = true}};
        return jail::give_up_set_up_capabilities(files, Log()) && can_read(file.path) &&
                       permitted() == jail::capability(CAP_DAC_OVERRIDE)
                   ? 0
                   : 1;
    });
    CHECK(end.status == 0);
}

// Landlock, by children that try files inside and outside of their rules.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <doctest/doctest.h>

#include "base/atomic_file.hpp"
#include "tests/unit/vmm/jail/child.hpp"
#include "vmm/jail/landlock.hpp"

using namespace masu;
using namespace masu::test;
namespace fs = std::filesystem;

namespace {

int kernel_abi() {
    return static_cast<int>(
        ::syscall(SYS_landlock_create_ruleset, nullptr, 0U, LANDLOCK_CREATE_RULESET_VERSION));
}

bool has_landlock() {
    if (kernel_abi() > 0)
        return true;
    std::puts("SKIP landlock: this kernel has none");
    return false;
}

// base/ holds `readable` and `writable`, each with a file, and the file `outside`.
class Folders {
  public:
    Folders() {
        std::string name = "/tmp/masu-landlock-XXXXXX";
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        base = name;
        for (const auto* folder : {"readable", "writable"}) {
            fs::create_directory(base / folder);
            std::ofstream(base / folder / "file") << "text";
        }
        std::ofstream(base / "outside") << "text";
    }
    ~Folders() { fs::remove_all(base); }
    Folders(const Folders&) = delete;
    Folders& operator=(const Folders&) = delete;

    [[nodiscard]] jail::FileRules rules() const {
        return {.read = {base / "readable"}, .write = {base / "writable"}};
    }
    fs::path base;
};

int error_of_open(const fs::path& path, int flags) {
    const Fd file(::open(path.c_str(), flags | O_CLOEXEC, 0600));
    return file ? 0 : errno;
}

// What `body` returns in a process behind these rules.
int behind(const jail::FileRules& rules, const std::function<int()>& body) {
    const auto end = in_child([&] {
        if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
            return 98;
        const auto view = jail::confine_files(rules);
        return view && view->abi > 0 ? body() : 99;
    });
    CHECK(end.signal == 0);
    return end.status;
}

}  // namespace

TEST_CASE("files outside of the rules are out of reach") {
    if (!has_landlock())
        return;
    const Folders folders;
    const auto open_behind = [&](const fs::path& path, int flags) {
        return behind(folders.rules(), [&] { return error_of_open(path, flags); });
    };
    const auto& base = folders.base;
    CHECK(open_behind(base / "readable/file", O_RDONLY) == 0);
    CHECK(open_behind(base / "readable/file", O_RDWR) == EACCES);
    CHECK(open_behind(base / "readable/new", O_RDWR | O_CREAT) == EACCES);
    CHECK(open_behind(base / "writable/file", O_RDWR) == 0);
    CHECK(open_behind(base / "writable/new", O_RDWR | O_CREAT | O_EXCL) == 0);
    CHECK(open_behind(base / "outside", O_RDONLY) == EACCES);
    CHECK(open_behind("/etc/passwd", O_RDONLY) == EACCES);
    CHECK(open_behind("/", O_RDONLY | O_DIRECTORY) == EACCES);
    CHECK(open_behind("/dev/null", O_RDWR) == 0);
}

TEST_CASE("a link into the rules' folders leads there, and one out of them nowhere") {
    if (!has_landlock())
        return;
    const Folders folders;
    fs::create_symlink(folders.base / "writable/file", folders.base / "way-in");
    fs::create_symlink(folders.base / "outside", folders.base / "writable/way-out");
    CHECK(behind(folders.rules(), [&] { return error_of_open(folders.base / "way-in", O_RDWR); }) ==
          0);
    CHECK(behind(folders.rules(), [&] {
              return error_of_open(folders.base / "writable/way-out", O_RDONLY);
          }) == EACCES);
}

TEST_CASE("files are replaced and removed where they may be written") {
    if (!has_landlock())
        return;
    const Folders folders;
    const auto& base = folders.base;
    CHECK(behind(folders.rules(), [&] {
              return write_file_atomically(base / "writable/file", "new") &&
                             ::unlink((base / "writable/file").c_str()) == 0
                         ? 0
                         : 1;
          }) == 0);
    CHECK(behind(folders.rules(), [&] {
              return ::unlink((base / "readable/file").c_str()) < 0 ? errno : 0;
          }) == EACCES);
    CHECK(fs::exists(base / "readable/file"));
}

TEST_CASE("a file of its own may be a rule, and its neighbours stay out of reach") {
    if (!has_landlock())
        return;
    const Folders folders;
    const jail::FileRules rules{.read = {}, .write = {folders.base / "outside"}};
    CHECK(behind(rules, [&] { return error_of_open(folders.base / "outside", O_RDWR); }) == 0);
    CHECK(behind(rules, [&] { return error_of_open(folders.base / "readable/file", O_RDONLY); }) ==
          EACCES);
}

TEST_CASE("this process is in sight, and no other is") {
    if (!has_landlock())
        return;
    const Folders folders;
    for (const auto& rules : {jail::FileRules{}, folders.rules()}) {
        CHECK(behind(rules, [] { return error_of_open("/proc/self/pagemap", O_RDONLY); }) == 0);
        CHECK(behind(rules, [] { return error_of_open("/proc/1/cmdline", O_RDONLY); }) == EACCES);
    }
}

TEST_CASE("without rules the operating system's folders are read-only, and other files as ever") {
    if (!has_landlock())
        return;
    const Folders folders;
    CHECK(behind({}, [&] { return error_of_open(folders.base / "outside", O_RDWR); }) == 0);
    CHECK(behind({}, [&] {
              return error_of_open(folders.base / "new", O_RDWR | O_CREAT | O_EXCL);
          }) == 0);
    CHECK(behind({}, [] { return error_of_open("/etc/passwd", O_RDONLY); }) == 0);
    CHECK(behind({}, [] { return error_of_open("/etc/passwd", O_RDWR); }) == EACCES);
    CHECK(behind({}, [] { return error_of_open("/usr/masu-jail", O_RDWR | O_CREAT); }) == EACCES);
}

TEST_CASE("nothing can be executed") {
    if (!has_landlock())
        return;
    CHECK(behind({}, [] {
              ::execl("/bin/true", "true", nullptr);
              return errno;
          }) == EACCES);
}

TEST_CASE("no TCP connection is made, where the kernel can see to it") {
    if (kernel_abi() < 4) {
        std::puts("SKIP landlock: this kernel's knows no network (Linux 6.7)");
        return;
    }
    CHECK(behind({}, [] {
              const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
              sockaddr_in address{};
              address.sin_family = AF_INET;
              address.sin_port = htons(9);
              address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
              return ::connect(socket.get(), static_cast<sockaddr*>(static_cast<void*>(&address)),
                               sizeof address) < 0
                         ? errno
                         : 0;
          }) == EACCES);
}

TEST_CASE("no process outside is signalled, where the kernel can see to it") {
    if (kernel_abi() < 6) {
        std::puts("SKIP landlock: this kernel's knows no signals (Linux 6.12)");
        return;
    }
    const auto parent = ::getpid();
    CHECK(behind({}, [&] { return ::kill(parent, 0) < 0 ? errno : 0; }) == EPERM);
}

TEST_CASE("a rule for what is not there is an error that names it") {
    if (!has_landlock())
        return;
    const auto view = jail::confine_files({.read = {"/nowhere/at/all"}, .write = {}});
    REQUIRE_FALSE(view);
    CHECK(view.error().message.contains("/nowhere/at/all"));
}

// Disk files and both engines, on real files.
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/stat.h>

#include <filesystem>

#include "base/bytes.hpp"
#include "devices/block/disk.hpp"
#include "tests/unit/devices/block/disk_io.hpp"
#include "tests/unit/devices/block/temporary_file.hpp"

using namespace masu;
using namespace masu::block;
using test::Bytes;

namespace {

std::string refusal(const OpenOptions& options) {
    const auto opened = open_disk(options);
    return opened ? "opened" : opened.error().message;
}

void exercise(Disk& disk) {
    const auto data = test::pattern(64 * KiB, 1);
    CHECK(test::write(disk, 4096, data) == 0);
    CHECK(test::read(disk, 4096, data.size()) == data);
    CHECK(test::flush(disk) == 0);
    CHECK(test::write(disk, 512, Bytes(512, std::byte{7})) == 0);
    CHECK(test::read(disk, 512, 512) == Bytes(512, std::byte{7}));

    for (const bool may_unmap : {false, true}) {
        CHECK(test::write(disk, 4096, data) == 0);
        CHECK(test::run(disk, {.op = Op::WriteZeroes,
                               .offset = 4096 + 512,
                               .size = 8192,
                               .may_unmap = may_unmap}) == 0);
        auto expected = data;
        std::fill_n(expected.begin() + 512, 8192, std::byte{0});
        CHECK(test::read(disk, 4096, data.size()) == expected);
    }
    CHECK(test::run(disk, {.op = Op::Discard, .offset = 8192, .size = 8192}) == 0);
    const auto discarded = test::read(disk, 8192, 8192);
    CHECK((discarded == Bytes(8192) ||
           Bytes(data.begin() + 4096, data.begin() + 12288) == discarded));
}

}  // namespace

TEST_CASE("what is no disk is refused in one clear sentence") {
    const test::TemporaryFolder folder;
    CHECK(refusal({.path = folder.path("absent")}).find("does not exist") != std::string::npos);
    CHECK(refusal({.path = folder.path(".")}).find("is a directory") != std::string::npos);
    CHECK(refusal({.path = "/dev/null"}).find("neither a file nor a block") != std::string::npos);
    REQUIRE(::mkfifo(folder.path("fifo").c_str(), 0600) == 0);
    CHECK(refusal({.path = folder.path("fifo")}).find("neither a file") != std::string::npos);
    CHECK(refusal({.path = folder.file("empty", 0)}).find("is empty") != std::string::npos);
    CHECK(refusal({.path = folder.file("tiny", 511)}).find("is empty") != std::string::npos);
}

TEST_CASE("a size that is no multiple of 512 is rounded down, with a warning") {
    const test::TemporaryFolder folder;
    const auto opened = open_disk({.path = folder.file("odd", 10 * 512 + 511)});
    REQUIRE(opened);
    CHECK(opened->disk->size() == 10 * 512);
    REQUIRE_FALSE(opened->warnings.empty());
    CHECK(opened->warnings[0].find("last 511 bytes") != std::string::npos);
}

TEST_CASE("one writer or many readers, within this process too") {
    const test::TemporaryFolder folder;
    const auto path = folder.file("disk", MiB);
    {
        const auto writer = open_disk({.path = path});
        REQUIRE(writer);
        CHECK(refusal({.path = path}).find("in use by another VM") != std::string::npos);
        CHECK(refusal({.path = path, .read_only = true}).find("in use by another VM") !=
              std::string::npos);
    }
    const auto reader = open_disk({.path = path, .read_only = true});
    REQUIRE(reader);
    CHECK(open_disk({.path = path, .read_only = true}));
    CHECK(refusal({.path = path}).find("two writers lose data") != std::string::npos);
}

TEST_CASE("reads, writes, zeroes and discards, through every engine") {
    const test::TemporaryFolder folder;
    for (const bool direct : {false, true}) {
        for (const bool force_sync : {false, true}) {
            CAPTURE(direct);
            CAPTURE(force_sync);
            auto opened = open_disk(
                {.path = folder.file("disk", MiB), .direct = direct, .force_sync = force_sync});
            REQUIRE(opened);
            CHECK((force_sync ? std::string(opened->engine) == "sync" : true));
            exercise(*opened->disk);
            opened->disk.reset();
            opened = open_disk({.path = folder.file("disk", MiB),
                                .direct = direct,
                                .force_sync = force_sync,
                                .late_engine = true});
            REQUIRE(opened);
            CHECK(std::string(opened->engine) == "none yet");
            exercise(*opened->disk);
        }
    }
}

TEST_CASE("an engine that is made late is there once a request is, and not before") {
    const test::TemporaryFolder folder;
    const auto overlay = folder.path("overlay");
    const OpenOptions options{
        .path = folder.file("disk", MiB), .overlay = overlay, .late_engine = true};
    const auto rings = [] {
        std::size_t count = 0;
        for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
            std::error_code gone;
            const auto target = std::filesystem::read_symlink(entry.path(), gone).string();
            count += target.contains("io_uring");
        }
        return count;
    };
    auto opened = open_disk(options);
    REQUIRE(opened);
    auto& disk = *opened->disk;
    const int completions = disk.completion_fd();
    std::vector<Completion> done;
    disk.kick();
    disk.reap(done);
    disk.drain(done);
    CHECK(done.empty());
    CHECK(disk.size() == MiB);
    CHECK(rings() == 0);
    disk.wake();
    const auto made = rings();
    CHECK((made == 2 || made == 0));  // the base's and the overlay's, where the host allows any
    CHECK(test::write(disk, 4096 + 512, test::pattern(512, 7)) == 0);
    CHECK(rings() == made);
    CHECK(disk.completion_fd() == completions);
    opened = Opened();
    opened = open_disk(options);
    REQUIRE(opened);
    CHECK(test::read(*opened->disk, 4096 + 512, 512) == test::pattern(512, 7));
}

TEST_CASE("more requests than the ring has entries all come back, once each") {
    const test::TemporaryFolder folder;
    for (const bool force_sync : {false, true}) {
        auto opened = open_disk({.path = folder.file("disk", 4 * MiB), .force_sync = force_sync});
        REQUIRE(opened);
        auto& disk = *opened->disk;
        constexpr std::size_t count = 1000;
        auto data = test::pattern(count * 4096, 3);
        std::vector<iovec> buffers;
        for (std::size_t i = 0; i < count; ++i)
            buffers.push_back({data.data() + i * 4096, 4096});
        for (std::size_t i = 0; i < count; ++i)
            disk.submit({.op = Op::Write,
                         .offset = i * 4096,
                         .size = 4096,
                         .buffers = {&buffers[i], 1},
                         .token = i});
        disk.kick();
        std::vector<Completion> done;
        while (done.size() < count) {
            pollfd ready{.fd = disk.completion_fd(), .events = POLLIN, .revents = 0};
            REQUIRE(::poll(&ready, 1, 10'000) == 1);
            disk.reap(done);
        }
        std::vector<int> seen(count);
        for (const auto& completion : done) {
            CHECK(completion.error == 0);
            ++seen[completion.token];
        }
        CHECK(seen == std::vector<int>(count, 1));
        CHECK(test::read(disk, 0, data.size()) == data);
    }
}

TEST_CASE("a read that the file no longer covers fails, and growth is seen when asked") {
    const test::TemporaryFolder folder;
    for (const bool force_sync : {false, true}) {
        const auto path = folder.file("disk", 64 * KiB);
        auto opened = open_disk({.path = path, .force_sync = force_sync});
        REQUIRE(opened);
        auto& disk = *opened->disk;
        REQUIRE(::truncate(path.c_str(), 6000) == 0);
        Bytes bytes(8192);
        const iovec buffer{bytes.data(), bytes.size()};
        CHECK(
            test::run(disk, {.op = Op::Read, .offset = 0, .size = 8192, .buffers = {&buffer, 1}}) ==
            EIO);
        REQUIRE(::truncate(path.c_str(), 128 * KiB + 5) == 0);
        const auto size = disk.refresh_size();
        REQUIRE(size);
        CHECK(*size == 128 * KiB);
        CHECK(disk.size() == 128 * KiB);
        REQUIRE(::truncate(path.c_str(), 0) == 0);
        CHECK_FALSE(disk.refresh_size());
    }
}

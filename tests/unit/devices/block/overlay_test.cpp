// Overlays on real files: content, sharing, growth, and what is refused.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>

#include "base/bytes.hpp"
#include "devices/block/overlay_disk.hpp"
#include "tests/unit/devices/block/memory_disk.hpp"
#include "tests/unit/devices/block/temporary_file.hpp"

using namespace masu;
using namespace masu::block;
using test::Bytes;

namespace {

void patch(const std::string& path, std::uint64_t offset, const Bytes& bytes) {
    const Fd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    REQUIRE(::pwrite(fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)) ==
            static_cast<ssize_t>(bytes.size()));
}

timespec mtime(const std::string& path) {
    struct stat status{};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    return status.st_mtim;
}

void set_mtime(const std::string& path, timespec time) {
    const timespec times[2] = {time, time};
    REQUIRE(::utimensat(AT_FDCWD, path.c_str(), times, 0) == 0);
}

struct Files {
    test::TemporaryFolder folder;
    std::string base = folder.file("base", 64 * KiB);
    std::string overlay = folder.path("overlay");
    Bytes content = test::pattern(64 * KiB, 1);
    Files() { patch(base, 0, content); }
    [[nodiscard]] OpenOptions options() const { return {.path = base, .overlay = overlay}; }
    std::unique_ptr<Disk> open() const {
        auto opened = open_disk(options());
        if (!opened)
            FAIL(opened.error().message);
        return std::move(opened->disk);
    }
    [[nodiscard]] std::string refusal() const {
        const auto opened = open_disk(options());
        return opened ? "opened" : opened.error().message;
    }
};

}  // namespace

TEST_CASE("an overlay takes the writes, and the base keeps what it had") {
    const Files files;
    auto expected = files.content;
    {
        const auto disk = files.open();
        CHECK(disk->size() == 64 * KiB);
        CHECK(test::read(*disk, 0, 64 * KiB) == files.content);
        const auto data = test::pattern(9 * 512, 2);
        CHECK(test::write(*disk, 5 * 512, data) == 0);
        std::ranges::copy(data, expected.begin() + 5 * 512);
        CHECK(test::read(*disk, 0, 64 * KiB) == expected);
    }
    CHECK(test::read(*files.open(), 0, 64 * KiB) == expected);
    const auto base = open_disk({.path = files.base});
    REQUIRE(base);
    CHECK(test::read(*base->disk, 0, 64 * KiB) == files.content);
}

TEST_CASE("many overlays share a base, and nobody may write to it meanwhile") {
    const Files files;
    const auto first = files.open();
    const auto second = open_disk(
        {.path = files.base, .overlay = files.folder.path("second"), .overlay_size = MiB});
    REQUIRE(second);
    CHECK(files.refusal().find("in use by another VM") != std::string::npos);
    CHECK_FALSE(open_disk({.path = files.base}));
    CHECK(test::write(*first, 0, Bytes(4096, std::byte{1})) == 0);
    CHECK(test::write(*second->disk, 0, Bytes(4096, std::byte{2})) == 0);
    CHECK(test::read(*first, 0, 512) == Bytes(512, std::byte{1}));
    CHECK(test::read(*second->disk, 0, 512) == Bytes(512, std::byte{2}));
    CHECK(second->disk->size() == MiB);
    CHECK(test::read(*second->disk, 64 * KiB - 512, 1024) == [&] {
        Bytes both(files.content.end() - 512, files.content.end());
        both.resize(1024);
        return both;
    }());
    CHECK_FALSE(open_disk({.path = files.base, .overlay = files.base}));
}

TEST_CASE("a read-only overlay reads") {
    const Files files;
    CHECK(test::write(*files.open(), 4096, Bytes(512, std::byte{1})) == 0);
    auto options = files.options();
    options.read_only = true;
    const auto opened = open_disk(options);
    REQUIRE(opened);
    CHECK(opened->disk->read_only());
    CHECK(test::read(*opened->disk, 4096, 512) == Bytes(512, std::byte{1}));
}

TEST_CASE("a base that changed is refused") {
    const Files files;
    const auto time = mtime(files.base);
    files.open();
    SUBCASE("in its modification time") {
        set_mtime(files.base, {.tv_sec = time.tv_sec + 1, .tv_nsec = 0});
        CHECK(files.refusal().find("the modification time of") != std::string::npos);
    }
    SUBCASE("in its size") {
        REQUIRE(::truncate(files.base.c_str(), 60 * KiB) == 0);
        CHECK(files.refusal().find("the size of") != std::string::npos);
    }
    SUBCASE("in its content alone") {
        patch(files.base, 8192, Bytes(1, ~files.content[8192]));
        set_mtime(files.base, time);
        CHECK(files.refusal().find("the content of") != std::string::npos);
    }
    SUBCASE("not at all") {
        CHECK(files.refusal() == "opened");
    }
}

TEST_CASE("a damaged overlay is refused") {
    const Files files;
    files.open();
    SUBCASE("wrong magic") {
        patch(files.overlay, 0, Bytes(8, std::byte{'x'}));
        CHECK(files.refusal().find("wrong magic") != std::string::npos);
    }
    SUBCASE("newer version") {
        patch(files.overlay, 8, Bytes(1, std::byte{9}));
        CHECK(files.refusal().find("format version 9") != std::string::npos);
    }
    SUBCASE("any bit of the header") {
        patch(files.overlay, 2000, Bytes(1, std::byte{1}));
        CHECK(files.refusal().find("checksum") != std::string::npos);
    }
    SUBCASE("cut short in the data") {
        REQUIRE(::truncate(files.overlay.c_str(), 20 * KiB) == 0);
        CHECK(files.refusal().find("cut short") != std::string::npos);
    }
    SUBCASE("cut short in the header") {
        REQUIRE(::truncate(files.overlay.c_str(), 1024) == 0);
        CHECK(files.refusal().find("cut short") != std::string::npos);
    }
    SUBCASE("empty") {
        REQUIRE(::truncate(files.overlay.c_str(), 0) == 0);
        CHECK(files.refusal().find("is empty") != std::string::npos);
    }
}

TEST_CASE("sizes an overlay cannot have") {
    const Files files;
    for (const std::uint64_t size :
         {std::uint64_t{32 * KiB}, std::uint64_t{64 * KiB + 1}, overlay_max_size + 512}) {
        auto options = files.options();
        options.overlay_size = size;
        CHECK_FALSE(open_disk(options));
    }
    CHECK(::access(files.overlay.c_str(), F_OK) != 0);
}

TEST_CASE("an overlay that exists keeps its size, and says so when asked for another") {
    const Files files;
    auto options = files.options();
    options.overlay_size = MiB;
    CHECK(open_disk(options)->disk->size() == MiB);
    CHECK(open_disk(options)->disk->size() == MiB);
    CHECK(files.open()->size() == MiB);
    options.overlay_size = 2 * MiB;
    const auto refused = open_disk(options);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message.find("makes a disk of 1048576 bytes") != std::string::npos);
}

TEST_CASE("a disk of many bitmap pages keeps few of them in memory, and loses nothing") {
    for (const bool force_sync : {false, true}) {
        const Files files;
        auto options = files.options();
        options.overlay_size = 64 * GiB;  // 512 pages
        options.force_sync = force_sync;
        options.late_engine = true;
        std::mt19937_64 random(1);
        std::map<std::uint64_t, Bytes> written;
        for (int round = 0; round < 2; ++round) {
            auto opened = open_disk(options);
            REQUIRE(opened);
            auto& disk = *opened->disk;
            for (int i = 0; i < 300; ++i) {
                const auto sector = random() % (64 * GiB / 4096) * 8 + random() % 7;
                written[sector] = test::pattern(512, static_cast<unsigned>(random()));
                REQUIRE(test::write(disk, sector * 512, written[sector]) == 0);
            }
            // A write across two pages of the bitmap.
            REQUIRE(test::write(disk, 128 * MiB - 8192, Bytes(16384, std::byte{5})) == 0);
            CHECK(test::read(disk, 128 * MiB - 8192, 16384) == Bytes(16384, std::byte{5}));
            for (const auto& [sector, data] : written)
                REQUIRE(test::read(disk, sector * 512, 512) == data);
            CHECK(dynamic_cast<OverlayDisk&>(disk).resident_bitmap_pages() <=
                  OverlayBitmap::resident_target);
        }
        struct stat status{};
        REQUIRE(::stat(files.overlay.c_str(), &status) == 0);
        CHECK(status.st_blocks * 512 < static_cast<off_t>(16 * MiB));  // sparse
    }
}

TEST_CASE("failing host: errors are reported, and a failed write leaves the block as it was") {
    const auto base = std::make_shared<test::HostFile>();
    base->content = test::pattern(64 * KiB, 1);
    const auto store = std::make_shared<test::HostFile>();
    // Before the disk, whose last flush still asks for them.
    bool fail_load = true;
    Op failing = Op::Read;
    const BaseIdentity identity{64 * KiB, 0, 0};
    store->content.resize(OverlayLayout::of(64 * KiB).file_size);
    std::ranges::copy(as_bytes_of(make_overlay_header(64 * KiB, identity, "b")),
                      store->content.begin());
    auto opened = OverlayDisk::open(std::make_unique<test::MemoryDisk>(base, 1, true), identity,
                                    test::header_of(store->content),
                                    std::make_unique<test::MemoryDisk>(store, 2), "o");
    REQUIRE(opened);
    auto& disk = **opened;
    store->failure = [&](const Request& request) {
        return fail_load && request.op == failing ? ENOSPC : 0;
    };
    CHECK(test::write(disk, 512, Bytes(512)) == EIO);  // its bitmap page cannot be read
    failing = Op::Write;
    CHECK(test::write(disk, 512, Bytes(512)) == ENOSPC);
    CHECK(test::read(disk, 0, 64 * KiB) == base->content);
    fail_load = false;
    CHECK(test::write(disk, 512, Bytes(512)) == 0);
    fail_load = true;
    CHECK(test::flush(disk) == ENOSPC);  // its bitmap page cannot be written
    failing = Op::Flush;
    CHECK(test::flush(disk) == ENOSPC);
    fail_load = false;
    CHECK(test::flush(disk) == 0);
    CHECK(test::read(disk, 512, 512) == Bytes(512));
    base->failure = [](const Request&) { return EIO; };
    CHECK(test::write(disk, 8192 + 512, Bytes(512)) == EIO);  // copy-up cannot read the base
    CHECK(test::write(disk, 8192, Bytes(4096, std::byte{3})) == 0);
    base->failure = nullptr;
    CHECK(test::read(disk, 8192, 4096) == Bytes(4096, std::byte{3}));
}

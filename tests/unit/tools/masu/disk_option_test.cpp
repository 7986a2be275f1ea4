// --disk: what is understood, what is refused, and what the monitor is asked for.
#include "tools/masu/disk_option.hpp"

#include <doctest/doctest.h>

#include <boost/json.hpp>

namespace masu::cli {
namespace {

DiskOption parsed(std::string_view text) {
    const auto disk = parse_disk_option(text);
    REQUIRE_MESSAGE(disk, text);
    return *disk;
}

}  // namespace

TEST_CASE("a disk is a path and settings in any order") {
    CHECK(parsed("a.raw") == DiskOption{.path = "a.raw"});
    const auto disk = parsed("/d/a.raw,bw=100M,serial=abc,direct,overlay=/o,size=20G,iops=3K");
    CHECK(disk.path == "/d/a.raw");
    CHECK(disk.bandwidth == 100 * 1024 * 1024);
    CHECK(disk.serial == "abc");
    CHECK(disk.direct);
    CHECK(disk.overlay == "/o");
    CHECK(disk.overlay_size == std::uint64_t{20} << 30);
    CHECK(disk.iops == 3072);
    CHECK_FALSE(disk.read_only);
    CHECK(parsed("a,ro").read_only);
}

TEST_CASE("two commas are one comma of a file name") {
    CHECK(parsed("a,,b.raw,ro").path == "a,b.raw");
    CHECK(parsed("a,overlay=x,,y").overlay == "x,y");
    CHECK(parsed("a,,").path == "a,");
}

TEST_CASE("what is no disk is refused") {
    for (const auto* text : {"",
                             ",ro",
                             "a,",
                             "a,rw",
                             "a,ro=1",
                             "a,direct=yes",
                             "a,overlay",
                             "a,overlay=",
                             "a,serial=",
                             "a,serial=123456789012345678901",
                             "a,serial=with space",
                             "a,iops=0",
                             "a,iops=-1",
                             "a,iops=fast",
                             "a,bw=",
                             "a,ro,overlay=b",
                             "a,RO",
                             "a,size=1G",
                             "a,overlay=b,size=0",
                             "a,overlay=b,size=1000",
                             "a,overlay=b,size="}) {
        CAPTURE(text);
        CHECK_FALSE(parse_disk_option(text));
    }
}

TEST_CASE("a request says what was asked for, and no more") {
    const auto plain = drive_request(parsed("/a"), "disk0");
    CHECK(plain.at("drive_id") == "disk0");
    CHECK(plain.at("path_on_host") == "/a");
    CHECK(plain.at("is_root_device") == false);
    CHECK_FALSE(plain.contains("overlay_path"));
    CHECK_FALSE(plain.contains("overlay_size"));
    CHECK_FALSE(plain.contains("rate_limiter"));
    CHECK_FALSE(plain.contains("direct"));

    const auto full =
        drive_request(parsed("/a,serial=s,overlay=/o,size=1M,iops=100,bw=1M,direct"), "d");
    CHECK(full.at("overlay_path") == "/o");
    CHECK(full.at("overlay_size") == 1024 * 1024);
    CHECK(full.at("serial") == "s");
    CHECK(full.at("direct") == true);
    CHECK(
        boost::json::serialize(full.at("rate_limiter")) ==
        R"({"ops":{"size":100,"refill_time":1000},"bandwidth":{"size":1048576,"refill_time":1000}})");
}

TEST_CASE("a disk survives vm.json") {
    for (const auto* text : {"/a", "/a,ro", "/a,serial=s,overlay=/o,size=1M,iops=100,bw=1M,direct"})
        CHECK(disk_from_json(to_json(parsed(text))) == parsed(text));
}

}  // namespace masu::cli

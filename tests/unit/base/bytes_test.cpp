// Sizes, and files replaced whole.
#include <doctest/doctest.h>
#include <unistd.h>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"

using namespace masu;

TEST_CASE("sizes take K, M, G and T as powers of 1024") {
    CHECK(*parse_size("512") == 512);
    CHECK(*parse_size("4K") == 4096);
    CHECK(*parse_size("1.5G") == 1536 * MiB);
    CHECK(*parse_size("2GiB") == 2 * GiB);
    CHECK(*parse_size("2gb") == *parse_size("2G"));
    CHECK(*parse_size("1T") == 1024 * GiB);
    for (const auto* bad : {"", "M", "12Q", "-1", "1e30T", "99999999T", "1 G", "0x10"})
        CHECK_FALSE(parse_size(bad).has_value());
}

TEST_CASE("sizes print short") {
    CHECK(format_size(512) == "512 B");
    CHECK(format_size(1536 * MiB) == "1.5 GiB");
    CHECK(format_size(128 * MiB) == "128 MiB");
}

TEST_CASE("a file is replaced whole, and a failed write leaves the old one") {
    char folder[] = "/tmp/masu-atomic-XXXXXX";
    REQUIRE(::mkdtemp(folder) != nullptr);
    const auto path = std::string(folder) + "/file";
    REQUIRE(write_file_atomically(path, "one").has_value());
    REQUIRE(write_file_atomically(path, "two").has_value());
    CHECK(*read_file(path, 100) == "two");
    CHECK_FALSE(read_file(path, 2).has_value());
    CHECK_FALSE(write_file_atomically(std::string(folder) + "/no/such/file", "x").has_value());
    ::unlink(path.c_str());
    CHECK(::rmdir(folder) == 0);  // no temporary file was left behind
}

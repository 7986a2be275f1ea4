// Flow logs as lines and files.
#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>

#include "base/atomic_file.hpp"
#include "devices/net/flow_log_file.hpp"
#include "devices/net/flow_log_format.hpp"

namespace masu::net {
namespace {

constexpr Nanoseconds second = 1'000'000'000;
const FlowLogIdentity identity{.account_id = "123456789010",
                               .interface_id = "eni-1",
                               .vpc_id = {},
                               .subnet_id = {},
                               .instance_id = "i-1",
                               .region = {},
                               .az_id = {},
                               .primary = *parse_address("172.31.9.12")};
// The window ends at 1418530080, when the monotonic clock shows 1000 s.
const FlowLogSpan span{
    .begin = 1418530020, .end = 1418530080, .now = 1000 * second, .wall = 1418530080 * second};

FlowRecord rdp() {
    return {.direction = Direction::Ingress,
            .accepted = false,
            .tuple = {*parse_address("172.31.9.69"), *parse_address("172.31.9.12"), 6, 49761, 3389},
            .tcp_flags = 2,
            .packets = 20,
            .bytes = 4249,
            .first = 930 * second,
            .last = 990 * second};
}

}  // namespace

TEST_CASE("version 2, as the guide shows it") {
    const auto format = FlowLogFormat::parse(FlowLogFormat::version2);
    REQUIRE(format);
    CHECK(format->lines({{rdp()}, 0}, identity, span) ==
          "2 123456789010 eni-1 172.31.9.69 172.31.9.12 49761 3389 6 20 4249 1418530010 1418530070 "
          "REJECT OK\n");
    CHECK(format->lines({}, identity, span) ==
          "2 123456789010 eni-1 - - - - - - - 1418530020 1418530080 - NODATA\n");
    CHECK(format->lines({{}, 3}, identity, span) ==
          "2 123456789010 eni-1 - - - - - - - 1418530020 1418530080 - SKIPDATA\n");
}

TEST_CASE("fields of one's own choice; the version is that of the newest") {
    const auto format = FlowLogFormat::parse(
        "${version} ${flow-direction} ${srcaddr} ${dstaddr} ${pkt-dstaddr} ${tcp-flags} ${type} "
        "${instance-id} ${vpc-id} ${traffic-path}");
    REQUIRE(format);
    auto record = rdp();
    record.tuple.destination = *parse_address("172.31.9.13");
    CHECK(format->lines({{record}, 0}, identity, span) ==
          "5 ingress 172.31.9.69 172.31.9.12 172.31.9.13 2 IPv4 i-1 - -\n");
    CHECK_FALSE(FlowLogFormat::parse(""));
    CHECK_FALSE(FlowLogFormat::parse("srcaddr"));
    CHECK(FlowLogFormat::parse("${sourceaddr}").error().message.contains("${srcaddr}"));
}

TEST_CASE("a file that has grown is put aside, once") {
    char folder[] = "/tmp/masu-flow-log-XXXXXX";
    REQUIRE(::mkdtemp(folder) != nullptr);
    const auto path = std::string(folder) + "/flow.log";
    {
        auto file = FlowLogFile::open(path, 10);
        REQUIRE(file);
        for (const auto* line :
             {"1111\n", "2222\n", "3333\n", "a line longer than the limit\n", "5\n"})
            CHECK(file->write(line));
        CHECK(*read_file(path, 100) == "5\n");
        CHECK(*read_file(path + ".1", 100) == "a line longer than the limit\n");
    }
    auto again = FlowLogFile::open(path, 10);
    CHECK(again->write("6\n"));
    CHECK(*read_file(path, 100) == "5\n6\n");
    CHECK(std::distance(std::filesystem::directory_iterator(folder), {}) == 2);
    std::filesystem::remove_all(folder);
}

}  // namespace masu::net

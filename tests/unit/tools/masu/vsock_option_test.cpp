// --vsock: what is understood, what is refused, and what the monitor is asked for.
#include "tools/masu/vsock_option.hpp"

#include <doctest/doctest.h>

#include <boost/json.hpp>

namespace masu::cli {

TEST_CASE("--vsock takes a CID or leaves it to us, and a path with commas in it") {
    CHECK(*parse_vsock_option("auto") == VsockOption{.cid = 3, .path = {}});
    CHECK(*parse_vsock_option("3") == VsockOption{.cid = 3, .path = {}});
    CHECK(parse_vsock_option("4294967294")->cid == 4294967294U);
    const auto vsock = parse_vsock_option("9,uds=/a,,b/../c");
    REQUIRE(vsock);
    CHECK(*vsock == VsockOption{.cid = 9, .path = "/c"});
    CHECK(vsock_from_json(to_json(*vsock)) == *vsock);
    CHECK(boost::json::serialize(vsock_request(*vsock)) == R"({"guest_cid":9,"uds_path":"/c"})");
}

TEST_CASE("--vsock refuses what is no CID of a guest, and settings it does not know") {
    for (const auto* text : {"", "0", "2", "4294967295", "4294967296", "x", "3x", "-3", "auto,",
                             "auto,uds", "auto,uds=", "auto,path=/x", "uds=/x"}) {
        const auto vsock = parse_vsock_option(text);
        REQUIRE_MESSAGE(!vsock, text);
        CHECK(vsock.error().message.starts_with("--vsock"));
    }
}

}  // namespace masu::cli

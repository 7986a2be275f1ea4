#include <doctest/doctest.h>

#include "vmm/pool/reply_parser.hpp"

using namespace masu;
using namespace masu::pool;

TEST_CASE("a reply is taken once it is there as a whole, and what follows stays") {
    const std::string whole =
        "HTTP/1.1 400 Bad Request\r\nServer: x\r\ncontent-length:  5\r\n\r\nhello";
    for (std::size_t cut = 0; cut < whole.size(); ++cut) {
        std::string part = whole.substr(0, cut);
        const auto reply = take_reply(part);
        REQUIRE(reply);
        CHECK_FALSE(reply->has_value());
        CHECK(part == whole.substr(0, cut));
    }
    std::string input = whole + "HTTP/1.1 204 No Content\r\n\r\n";
    const auto first = take_reply(input);
    REQUIRE(first);
    REQUIRE(first->has_value());
    CHECK((*first)->status == 400);
    CHECK((*first)->body == "hello");
    const auto second = take_reply(input);
    REQUIRE(second);
    REQUIRE(second->has_value());
    CHECK((*second)->status == 204);
    CHECK((*second)->body.empty());
    CHECK(input.empty());
}

TEST_CASE("what is no reply of ours is refused and not waited for") {
    for (std::string bad :
         {"SSH-2.0\r\n\r\n", "HTTP/1.1 2\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 100 C\r\n\r\n",
          "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
          "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
          "HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n",
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
          "HTTP/1.1 200 OK\r\nno colon\r\n\r\n"}) {
        CAPTURE(bad);
        CHECK_FALSE(take_reply(bad));
    }
    std::string endless(10'000, 'x');
    CHECK_FALSE(take_reply(endless));
}

// Credit, the line of a program, and their odd cases.
#include "devices/vsock/credit.hpp"

#include <doctest/doctest.h>

#include <array>
#include <string>

#include "devices/vsock/connect_line.hpp"

using namespace masu::vsock;

TEST_CASE("what may be sent follows what the guest says of its buffer, across the wrap") {
    SendCredit credit;
    CHECK(credit.available() == 0);
    credit.update(1000, 0);
    CHECK(credit.available() == 1000);
    credit.sent(600);
    CHECK(credit.available() == 400);
    credit.sent(400);
    CHECK(credit.available() == 0);
    credit.update(1000, 600);
    CHECK(credit.available() == 600);
    credit.update(100, 600);  // the buffer may shrink below what is under way
    CHECK(credit.available() == 0);
    credit.update(1000, 1000);
    credit.sent(0xffff'ff00U - 1000U);
    credit.update(1000, 0xffff'ff00U);
    credit.sent(500);
    CHECK(credit.available() == 500);
    credit.update(1000, 0xffff'ff00U + 500U);
    CHECK(credit.available() == 1000);
}

TEST_CASE("a guest that claims to have taken more than it got gets nothing") {
    SendCredit credit;
    credit.update(1000, 1);
    CHECK(credit.available() == 0);
    credit.update(0xffff'ffff, 0x8000'0000);
    CHECK(credit.available() <= 0x8000'0000U);
}

TEST_CASE("the guest may fill the buffer and no more, across the wrap") {
    ReceiveCredit credit(1'000'000);
    for (int round = 0; round < 10'000; ++round) {
        CHECK_FALSE(credit.accept(1'000'001));
        CHECK(credit.accept(400'000));
        CHECK(credit.accept(600'000));
        CHECK_FALSE(credit.accept(1));
        CHECK_FALSE(credit.accept(0xffff'ffff));
        CHECK_FALSE(credit.worth_telling());
        credit.forward(1'000'000);
        CHECK(credit.worth_telling());
        credit.told();
        CHECK_FALSE(credit.worth_telling());
    }
    CHECK(credit.buf_alloc() == 1'000'000);
}

TEST_CASE("a program's line names a port, and nothing else passes") {
    using enum ConnectLine::State;
    const auto good = parse_connect_line("CONNECT 1024\nrest");
    CHECK(good.state == Complete);
    CHECK(good.port == 1024);
    CHECK(good.size == 13);
    CHECK(parse_connect_line("connect 0\n").state == Complete);
    CHECK(parse_connect_line("Connect 4294967294\n").port == 4294967294U);
    for (const auto* text : {"", "C", "CONNECT", "CONNECT ", "CONNECT 12", "GET / HTTP/1.1"})
        CHECK_MESSAGE(parse_connect_line(text).state == Incomplete, text);
    for (const auto* text :
         {"\n", "CONNECT\n", "CONNECT \n", "CONNECT  5\n", "CONNECT 5 \n", "CONNECT +5\n",
          "CONNECT -1\n", "CONNECT 5\r\n", "CONNECT 0x5\n", "CONNECT 4294967295\n",
          "CONNECT 4294967296\n", "CONNECT 99999999999999999999\n", "LISTEN 5\n", "CONNECTT 5\n",
          "CONNECT 00000000000000000000000005\n"})
        CHECK_MESSAGE(parse_connect_line(text).state == Bad, text);
    CHECK(parse_connect_line(std::string(32, '1')).state == Bad);
    CHECK(parse_connect_line(std::string(31, '1')).state == Incomplete);
}

// The Ctrl-A keys.
#include "tools/masu/terminal.hpp"

#include <doctest/doctest.h>

namespace masu::cli {

TEST_CASE("plain keys pass, and Ctrl-A Ctrl-A is one Ctrl-A") {
    EscapeKeys keys;
    const auto step = keys.feed(
        "ls\x01\x01-l\x01"
        "a\n");
    CHECK(step.to_guest == "ls\x01-l\x01\n");
    CHECK_FALSE(step.command);
    CHECK(step.used == 9);
}

TEST_CASE("a command ends the step, and what follows waits") {
    EscapeKeys keys;
    const auto first = keys.feed("ab\x01xcd");
    CHECK(first.to_guest == "ab");
    CHECK(first.command == EscapeCommand::Quit);
    CHECK(first.used == 4);
    CHECK(keys.feed("cd").to_guest == "cd");
}

TEST_CASE("a command may come in two reads") {
    EscapeKeys keys;
    CHECK(keys.feed("\x01").to_guest.empty());
    CHECK(keys.feed("d").command == EscapeCommand::Detach);
    CHECK(keys.feed("\x01").to_guest.empty());
    CHECK(keys.feed("?").command == EscapeCommand::Help);
    CHECK(keys.feed("x").to_guest == "x");
}

}  // namespace masu::cli

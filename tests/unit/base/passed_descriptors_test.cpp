// Descriptors that travel with a message.
#include "base/passed_descriptors.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>

using namespace masu;

namespace {

struct Pair {
    Fd ours;
    Fd theirs;
    Pair() {
        int ends[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
        ours.reset(ends[0]);
        theirs.reset(ends[1]);
    }
};

std::vector<Fd> some(std::size_t count) {
    std::vector<Fd> made;
    for (std::size_t i = 0; i < count; ++i)
        made.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    return made;
}

const std::array<std::byte, 3> hello{std::byte{1}, std::byte{2}, std::byte{3}};

}  // namespace

TEST_CASE("a message brings its bytes and descriptors, which are close-on-exec") {
    const Pair pair;
    for (const auto count : {0UL, 1UL, 2UL, max_passed_descriptors}) {
        CAPTURE(count);
        REQUIRE(send_with_descriptors(pair.ours.get(), hello, some(count)) == 3);
        std::array<std::byte, 16> bytes{};
        const auto received = receive_with_descriptors(pair.theirs.get(), bytes);
        CHECK(received.size == 3);
        CHECK(received.flags == MSG_CMSG_CLOEXEC);
        CHECK(std::memcmp(bytes.data(), hello.data(), hello.size()) == 0);
        REQUIRE(received.passed.size() == count);
        for (const auto& fd : received.passed)
            CHECK((::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
    }
}

TEST_CASE("what is cut off, too much, or not there is told") {
    const Pair pair;
    CHECK(send_with_descriptors(pair.ours.get(), hello, some(max_passed_descriptors + 1)) == -1);
    CHECK(errno == E2BIG);

    REQUIRE(send_with_descriptors(pair.ours.get(), hello, {}) == 3);
    std::array<std::byte, 2> small{};
    CHECK((receive_with_descriptors(pair.theirs.get(), small).flags & MSG_TRUNC) != 0);

    CHECK(receive_with_descriptors(pair.theirs.get(), small, MSG_DONTWAIT).size == -1);
    CHECK(errno == EAGAIN);
}

// Reads and writes at an offset.
#include "base/file_bytes.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>

#include <array>

#include "base/fd.hpp"

using namespace masu;

TEST_CASE("what is written at an offset is read there, up to the end of the file") {
    const Fd file(::memfd_create("test", MFD_CLOEXEC));
    const std::array<std::byte, 3> bytes{std::byte{1}, std::byte{2}, std::byte{3}};
    REQUIRE(write_at(file.get(), bytes, 5));
    std::array<std::byte, 8> back{};
    CHECK(read_at(file.get(), back, 0) == 8UL);
    CHECK(is_zero(std::span(back).first(5)));
    CHECK(back[7] == std::byte{3});
    CHECK(read_at(file.get(), back, 6) == 2UL);
    CHECK(back[0] == std::byte{2});
    CHECK(read_at(file.get(), back, 8) == 0UL);

    const Fd reading(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    CHECK(write_at(reading.get(), bytes, 0).error().os_errno == EBADF);
    CHECK(read_at(-1, back, 0).error().os_errno == EBADF);
}

TEST_CASE("zeros are told from all else, wherever the other byte is") {
    std::array<std::byte, 9> bytes{};
    CHECK(is_zero(bytes));
    CHECK(is_zero({}));
    for (auto& byte : bytes) {
        byte = std::byte{1};
        CHECK_FALSE(is_zero(bytes));
        byte = std::byte{0};
    }
}

// Blocking calls on a Disk, for tests.
#pragma once

#include <doctest/doctest.h>

#include <cstddef>
#include <cstring>
#include <random>
#include <vector>

#include "devices/block/disk.hpp"

namespace masu::test {

using Bytes = std::vector<std::byte>;

inline Bytes pattern(std::size_t size, unsigned seed) {
    Bytes bytes(size);
    std::mt19937 random(seed);
    for (auto& byte : bytes)
        byte = static_cast<std::byte>(random());
    return bytes;
}

// The error of one request; everything else in flight must be done.
inline int run(block::Disk& disk, block::Request request) {
    request.token = 42;
    disk.submit(request);
    disk.kick();
    std::vector<block::Completion> done;
    disk.drain(done);
    REQUIRE(done.size() == 1);
    CHECK(done[0].token == 42);
    return done[0].error;
}

inline int write(block::Disk& disk, std::uint64_t offset, const Bytes& bytes) {
    Bytes copy = bytes;
    const iovec buffer{copy.data(), copy.size()};
    return run(
        disk,
        {.op = block::Op::Write, .offset = offset, .size = copy.size(), .buffers = {&buffer, 1}});
}

inline Bytes read(block::Disk& disk, std::uint64_t offset, std::uint64_t size) {
    Bytes bytes(size, std::byte{0xee});
    const iovec buffer{bytes.data(), bytes.size()};
    CHECK(run(disk,
              {.op = block::Op::Read, .offset = offset, .size = size, .buffers = {&buffer, 1}}) ==
          0);
    return bytes;
}

inline int flush(block::Disk& disk) {
    return run(disk, {.op = block::Op::Flush});
}

}  // namespace masu::test

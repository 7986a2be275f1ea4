// The passt backend: frames over a stream that stutters, fills up and breaks.
#include "devices/net/passt.hpp"

#include <doctest/doctest.h>
#include <sys/socket.h>

#include "tests/unit/devices/net/fake_network.hpp"

namespace masu::net {
namespace {

using namespace fake;

struct Rig {
    Rig() {
        int ends[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
        other.reset(ends[1]);
        passt = std::move(*Passt::adopt(Fd(ends[0])));
    }
    void feed(const Bytes& bytes) {
        REQUIRE(::send(other.get(), bytes.data(), bytes.size(), 0) ==
                static_cast<ssize_t>(bytes.size()));
    }
    Received receive() { return passt->receive(0, buffer); }
    IoStatus send(Bytes frame) {
        NetHeader header;
        const std::array pieces{iovec{.iov_base = &header, .iov_len = sizeof header},
                                iovec{.iov_base = frame.data(), .iov_len = 10},
                                iovec{.iov_base = frame.data() + 10, .iov_len = frame.size() - 10}};
        return passt->send(0, pieces);
    }
    Bytes drain() {
        Bytes all(1 << 20);
        const auto got = ::recv(other.get(), all.data(), all.size(), 0);
        all.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
        return all;
    }
    Fd other;
    std::unique_ptr<Passt> passt;
    Bytes buffer = Bytes(sizeof(NetHeader) + max_frame_size);
};

Bytes framed(const Bytes& frame) {
    return be32(static_cast<std::uint32_t>(frame.size())) + frame;
}

}  // namespace

TEST_CASE("frames come out whole, however the stream is cut") {
    Rig rig;
    const auto frame = udp_frame(100);
    for (const auto byte : framed(frame)) {
        CHECK(rig.receive().status == IoStatus::Again);
        rig.feed({byte});
    }
    auto received = rig.receive();
    CHECK(received.status == IoStatus::Done);
    CHECK(received.size == sizeof(NetHeader) + frame.size());
    CHECK(std::ranges::equal(std::span(rig.buffer).subspan(12, frame.size()), frame));
    // Many in one read, and one across the buffer's end.
    for (int round = 0; round < 10; ++round) {
        for (int i = 0; i < 20; ++i)
            rig.feed(framed(udp_frame(1900)));
        for (int i = 0; i < 20; ++i) {
            received = rig.receive();
            CHECK(received.status == IoStatus::Done);
            CHECK(received.size == sizeof(NetHeader) + udp_frame(1900).size());
        }
    }
    CHECK(rig.receive().status == IoStatus::Again);
}

TEST_CASE("a length no frame has closes the stream for good") {
    for (const std::uint32_t length : {0U, 13U, 70'000U, 0xffffffffU}) {
        Rig rig;
        rig.feed(be32(length));
        CHECK(rig.receive().status == IoStatus::Closed);
        CHECK(rig.receive().status == IoStatus::Closed);
        CHECK(rig.send(udp_frame(5)) == IoStatus::Closed);
    }
}

TEST_CASE("the end of passt is seen from both sides") {
    Rig rig;
    rig.feed(framed(udp_frame(5)));
    rig.other.reset();
    CHECK(rig.receive().status == IoStatus::Done);  // what came before still counts
    CHECK(rig.receive().status == IoStatus::Closed);
    Rig writer;
    writer.other.reset();
    CHECK(writer.send(udp_frame(5)) == IoStatus::Closed);
    CHECK(writer.passt->can_send(0));  // or the device would wait for ever
}

TEST_CASE("a full socket holds one frame back and loses none") {
    Rig rig;
    const auto frame = udp_frame(30'000);
    std::size_t sent = 0;
    while (rig.passt->can_send(0) && sent < 1000) {
        REQUIRE(rig.send(frame) == IoStatus::Done);
        ++sent;
    }
    REQUIRE(sent < 1000);
    CHECK(rig.send(frame) == IoStatus::Again);
    Bytes all;
    for (int i = 0; i < 1000 && all.size() < sent * framed(frame).size(); ++i) {
        all = all + rig.drain();
        std::ignore = rig.passt->flush(0);
    }
    REQUIRE(all.size() == sent * framed(frame).size());
    const auto one = framed(frame);
    for (std::size_t i = 0; i < sent; ++i)
        CHECK(std::ranges::equal(std::span(all).subspan(i * one.size(), one.size()), one));
    CHECK(rig.passt->can_send(0));
}

TEST_CASE("only a stream socket is taken") {
    CHECK_FALSE(Passt::adopt(Fd(::eventfd(0, EFD_CLOEXEC))));
    CHECK_FALSE(Passt::adopt(Fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0))));
}

}  // namespace masu::net

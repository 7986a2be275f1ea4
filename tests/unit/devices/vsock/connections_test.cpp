// virtio-vsock: connections from either side, from their request to their end.
#include <doctest/doctest.h>

#include "tests/unit/devices/vsock/fake_guest.hpp"

using namespace masu;
using namespace masu::vsock;
using namespace masu::vsock::fake;

namespace {

Header shutdown_of(Ports ports, std::uint32_t flags) {
    auto header = Guest::header(op::shutdown, ports);
    header.flags = flags;
    return header;
}

}  // namespace

TEST_CASE("the configuration space holds the CID") {
    Guest guest;
    std::array<std::byte, 8> config{};
    guest.device->read_config(0, config);
    CHECK(load_unaligned<std::uint64_t>(config.data()) == cid);
    std::array<std::byte, 4> upper{std::byte{1}, std::byte{1}, std::byte{1}, std::byte{1}};
    guest.device->read_config(4, upper);
    CHECK(load_unaligned<std::uint32_t>(upper.data()) == 0);
    guest.device->read_config(~0ULL, upper);
    CHECK(guest.device->features() == feature::stream);
}

TEST_CASE("the guest reaches a program that listens, and bytes go both ways") {
    Guest guest;
    guest.up();
    auto& program = guest.open(1000, 80);
    CHECK(guest.asked == std::vector<std::uint32_t>{80});
    guest.send(Guest::header(op::rw, {1000, 80}), "question");
    CHECK(program.read() == "question");
    program.write("answer");
    const auto answer = guest.expect(op::rw);
    CHECK(answer.payload == "answer");
    CHECK(answer.header.src_cid == host_cid);
    CHECK(answer.header.src_port == 80);
    CHECK(answer.header.dst_port == 1000);
    CHECK(answer.header.type == type_stream);
    CHECK(answer.header.fwd_cnt == 8);
    CHECK(answer.header.buf_alloc == Connection::buffer_size);
    CHECK(guest.count("tx_bytes") == 8);
    CHECK(guest.count("rx_bytes") == 6);
    CHECK_FALSE(guest.driver.interrupts.empty());
}

TEST_CASE("where nobody listens the guest is refused") {
    Guest guest;
    guest.up();
    guest.send(Guest::header(op::request, {1000, 81}));
    const auto refusal = guest.expect(op::rst).header;
    CHECK(refusal.src_port == 81);
    CHECK(refusal.dst_port == 1000);
    CHECK(guest.count("refused_host") == 1);
}

TEST_CASE("a program reaches a port of the guest, and is told its own") {
    Guest guest;
    guest.up();
    auto [program, ports] = guest.call(52);
    CHECK(ports.host >= 1U << 30);
    CHECK(ports.host < 1U << 31);
    CHECK(program.read().empty());
    program.write("early");  // before it knows
    CHECK(guest.quiet());
    guest.send(Guest::header(op::response, ports));
    CHECK(program.read() == fmt::format("OK {}\n", ports.host));
    CHECK(guest.expect(op::rw).payload == "early");
    guest.send(Guest::header(op::rw, ports), "hello");
    CHECK(program.read() == "hello");
    const auto second = guest.call(52).second;
    CHECK(second.host != ports.host);
}

TEST_CASE("what follows the line at once is the connection's") {
    Guest guest;
    guest.up();
    auto [ours, program] = socket_pair();
    program.write("CONN");
    guest.device->accept(std::move(ours));
    CHECK(guest.quiet());
    program.write("ECT 7\nfirst words");
    const auto request = guest.expect(op::request).header;
    guest.send(Guest::header(op::response, {7, request.src_port}));
    CHECK(guest.expect(op::rw).payload == "first words");
}

TEST_CASE("a program is turned away without a word") {
    Guest guest;
    SUBCASE("by a guest that refuses") {
        guest.up();
        auto [program, ports] = guest.call(52);
        guest.send(Guest::header(op::rst, ports));
        CHECK(program.at_end());
        CHECK(guest.count("refused_guest") == 1);
    }
    SUBCASE("for a line that is none") {
        guest.up();
        auto [ours, program] = socket_pair();
        program.write("GET / HTTP/1.1\r\n");
        guest.device->accept(std::move(ours));
        CHECK(program.at_end());
        CHECK(guest.quiet());
    }
    SUBCASE("for a line that does not end") {
        guest.up();
        auto [ours, program] = socket_pair();
        program.write(std::string(32, 'C'));
        guest.device->accept(std::move(ours));
        CHECK(program.at_end());
    }
    SUBCASE("without a driver in the guest") {
        auto [ours, program] = socket_pair();
        guest.device->accept(std::move(ours));
        CHECK(program.at_end());
    }
    CHECK(guest.driver.faults.empty());
}

TEST_CASE("handshakes and farewells end by themselves") {
    Guest guest({.handshake_timeout = 1'000'000, .shutdown_timeout = 1'000'000});
    guest.up();
    SUBCASE("a program that says nothing") {
        auto [ours, program] = socket_pair();
        guest.device->accept(std::move(ours));
        guest.pass(2'000'000);
        CHECK(program.at_end());
        CHECK(guest.quiet());
    }
    SUBCASE("a guest that does not answer") {
        auto [program, ports] = guest.call(52);
        guest.pass(2'000'000);
        CHECK(program.at_end());
        CHECK(guest.expect(op::rst).header.src_port == ports.host);
        guest.send(Guest::header(op::response, ports));  // too late
        guest.expect(op::rst);
    }
    SUBCASE("a guest that does not confirm the end") {
        guest.open(1000, 80);
        guest.programs.clear();
        CHECK(guest.expect(op::shutdown).header.flags == shutdown::both);
        guest.pass(2'000'000);
        guest.expect(op::rst);
    }
    SUBCASE("a program that does not read what the guest sent before its end") {
        guest.send_buffer = 4096;
        auto& program = guest.open(1000, 80);
        guest.send(Guest::header(op::rw, {1000, 80}), std::string(64 * KiB, 'x'));
        guest.send(shutdown_of({1000, 80}, shutdown::both));
        guest.expect(op::rst);
        CHECK(guest.count("closed") == 0);
        guest.pass(2'000'000);
        CHECK(guest.count("closed") == 1);
        CHECK(program.read().size() < 64 * KiB);
        CHECK(guest.quiet());
    }
    CHECK(guest.count("timeouts") == 1);
}

TEST_CASE("a program that ends its sending is still heard of the guest") {
    Guest guest;
    guest.up();
    auto& program = guest.open(1000, 80);
    program.write("all I have");
    ::shutdown(program.socket.get(), SHUT_WR);
    CHECK(guest.expect(op::rw).payload == "all I have");
    CHECK(guest.expect(op::shutdown).header.flags == shutdown::send);
    CHECK(guest.quiet());
    guest.send(Guest::header(op::rw, {1000, 80}), "the answer");
    CHECK(program.read() == "the answer");
    program.socket.reset();
    CHECK(guest.expect(op::shutdown).header.flags == shutdown::both);
    guest.send(Guest::header(op::rst, {1000, 80}));
    CHECK(guest.quiet());
    CHECK(guest.count("closed") == 1);
}

TEST_CASE("a guest that ends its sending still hears the program") {
    Guest guest;
    guest.up();
    auto& program = guest.open(1000, 80);
    guest.send(Guest::header(op::rw, {1000, 80}), "request");
    guest.send(shutdown_of({1000, 80}, shutdown::send));
    CHECK(program.read() == "request");
    CHECK(program.at_end());
    program.write("reply");
    CHECK(guest.expect(op::rw).payload == "reply");
    guest.send(shutdown_of({1000, 80}, shutdown::receive));
    guest.expect(op::rst);
    CHECK(guest.count("closed") == 1);
}

TEST_CASE("a guest that reads no more stops the program's writing, and may go on writing") {
    Guest guest;
    guest.up();
    auto& program = guest.open(1000, 80);
    guest.send(shutdown_of({1000, 80}, shutdown::receive));
    const auto sent = ::send(program.socket.get(), "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    CHECK((sent < 0 && errno == EPIPE));
    guest.send(Guest::header(op::rw, {1000, 80}), "still here");
    CHECK(program.read() == "still here");
    CHECK(guest.quiet());
    program.socket.reset();
    CHECK(guest.expect(op::shutdown).header.flags == shutdown::both);
}

TEST_CASE("a program that reads no more is not read to") {
    Guest guest;
    guest.up();
    auto& program = guest.open(1000, 80);
    ::shutdown(program.socket.get(), SHUT_RD);
    guest.send(Guest::header(op::rw, {1000, 80}), "lost");
    CHECK(guest.expect(op::shutdown).header.flags == shutdown::receive);
    program.write("but I write");
    CHECK(guest.expect(op::rw).payload == "but I write");
}

TEST_CASE("a guest that closes is answered at once, and the program still gets every byte") {
    Guest guest;
    guest.up();
    guest.send_buffer = 4096;
    guest.open(1000, 80);
    const std::string chunk(32 * KiB, 'z');
    const std::size_t sent = 3 * chunk.size();
    for (int i = 0; i < 3; ++i)
        guest.send(Guest::header(op::rw, {1000, 80}), chunk);
    guest.send(shutdown_of({1000, 80}, shutdown::both));
    guest.expect(op::rst);
    // The ports are free at once.
    guest.send(Guest::header(op::request, {1000, 80}));
    guest.expect(op::response);
    auto& first = guest.programs.front();
    std::size_t got = 0;
    for (int i = 0; i < 1000 && got < sent; ++i) {
        const auto part = first.read();
        CHECK(part.find_first_not_of('z') == std::string::npos);
        got += part.size();
        guest.run(1);
    }
    CHECK(got == sent);
    guest.run();
    CHECK(first.at_end());
}

TEST_CASE("a program that ends is read to its last byte before the guest is told") {
    Guest guest;
    guest.up(4);
    auto& program = guest.open(1000, 80);
    const std::string text(40'000, 'q');
    program.write(text);
    program.socket.reset();
    std::string got;
    while (true) {
        guest.run(2);
        const auto packet = guest.take();
        REQUIRE(packet);
        if (packet->header.op == op::shutdown) {
            CHECK(packet->header.flags == shutdown::both);
            break;
        }
        got += packet->payload;
    }
    CHECK(got == text);
}

TEST_CASE("a reset ends every connection, and the device works again afterwards") {
    Guest guest;
    guest.up();
    auto& program = guest.open(1000, 80);
    auto [caller, ports] = guest.call(52);
    {
        const std::lock_guard lock(guest.device->mutex());
        guest.device->reset();
    }
    CHECK(program.at_end());
    CHECK(caller.at_end());
    guest.run();
    CHECK(guest.count("closed") == 2);
    guest.programs.clear();
    virtio::fake::Ring rx(guest.memory, 256, ring_features);
    guest.rx = rx;
    guest.tx = virtio::fake::Ring(guest.memory, 256, ring_features);
    guest.event = virtio::fake::Ring(guest.memory, 16, ring_features);
    guest.taken = 0;
    guest.up();
    guest.open(1000, 80);
    guest.send(Guest::header(op::rw, {1000, 80}), "again");
    CHECK(guest.programs.back().read() == "again");
}

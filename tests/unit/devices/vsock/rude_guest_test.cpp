// virtio-vsock: guests that keep to no rule.
#include <doctest/doctest.h>

#include "tests/unit/devices/vsock/fake_guest.hpp"

using namespace masu;
using namespace masu::vsock;
using namespace masu::vsock::fake;

TEST_CASE("a packet that is no packet of this guest is dropped and counted") {
    Guest guest;
    guest.up();
    guest.listening.insert(80);
    auto request = Guest::header(op::request, {1000, 80});
    SUBCASE("a short header") {
        guest.tx.chain().append_readable(std::string_view("short")).build();
        guest.notify(1);
    }
    SUBCASE("no readable part") {
        guest.tx.chain().append_writable(100).build();
        guest.notify(1);
    }
    SUBCASE("another guest's CID") {
        request.src_cid = cid + 1;
        guest.send(request);
    }
    SUBCASE("the host's CID") {
        request.src_cid = host_cid;
        guest.send(request);
    }
    SUBCASE("a CID of which only the lower half is right") {
        request.src_cid = cid | 1ULL << 32;
        guest.send(request);
    }
    CHECK(guest.tx.take_used());
    CHECK(guest.quiet());
    CHECK(guest.asked.empty());
    CHECK(guest.count("malformed") == 1);
    CHECK(guest.driver.faults.empty());
}

TEST_CASE("what has no connection is answered with RST, which itself is not") {
    Guest guest;
    guest.up();
    guest.listening.insert(80);
    auto header = Guest::header(op::rw, {1000, 80});
    SUBCASE("bytes") {}
    SUBCASE("a response") {
        header.op = op::response;
    }
    SUBCASE("credit") {
        header.op = op::credit_request;
    }
    SUBCASE("an unknown operation") {
        header.op = 77;
    }
    SUBCASE("an unknown type") {
        header.op = op::request;
        header.type = 2;
    }
    SUBCASE("another guest") {
        header.op = op::request;
        header.dst_cid = cid + 1;
    }
    SUBCASE("itself") {
        header.op = op::request;
        header.dst_cid = cid;
    }
    SUBCASE("the hypervisor") {
        header.op = op::request;
        header.dst_cid = 0;
    }
    SUBCASE("a CID of which only the lower half is the host's") {
        header.op = op::request;
        header.dst_cid = host_cid | 1ULL << 32;
    }
    guest.send(header);
    const auto answer = guest.expect(op::rst).header;
    CHECK(answer.src_cid == header.dst_cid);
    CHECK(answer.src_port == 80);
    CHECK(answer.dst_port == 1000);
    CHECK(answer.type == header.type);
    header.op = op::rst;
    guest.send(header);
    CHECK(guest.quiet());
    CHECK(guest.asked.empty());
}

TEST_CASE("who breaks the rules of a connection loses it, and no other") {
    Guest guest;
    guest.up();
    guest.open(1, 81);
    auto& innocent = guest.programs.front();
    auto& program = guest.open(1000, 80);
    auto header = Guest::header(op::rw, {1000, 80});
    SUBCASE("a second request") {
        guest.send(Guest::header(op::request, {1000, 80}));
    }
    SUBCASE("a response to nothing") {
        guest.send(Guest::header(op::response, {1000, 80}));
    }
    SUBCASE("operation 0") {
        guest.send(Guest::header(0, {1000, 80}));
    }
    SUBCASE("an unknown operation") {
        guest.send(Guest::header(8, {1000, 80}));
    }
    SUBCASE("a length beyond the packet") {
        header.len = 100;
        guest.send_raw(header, std::string(99, 'x'));
    }
    SUBCASE("the largest length") {
        header.len = 0xffff'ffff;
        guest.send_raw(header, "x");
    }
    SUBCASE("bytes after it said that there are no more") {
        auto end = Guest::header(op::shutdown, {1000, 80});
        end.flags = shutdown::send;
        guest.send(end);
        guest.send(header, "x");
    }
    guest.expect(op::rst);
    CHECK(guest.count("violations") == 1);
    CHECK(program.at_end());
    guest.send(header, "more");  // not known any more
    guest.expect(op::rst);
    guest.send(Guest::header(op::rw, {1, 81}), "fine");
    CHECK(innocent.read() == "fine");
    CHECK(guest.driver.faults.empty());
}

TEST_CASE("bytes behind the packet's length are not the program's") {
    Guest guest;
    guest.up();
    auto& program = guest.open(1000, 80);
    auto header = Guest::header(op::rw, {1000, 80});
    header.len = 4;
    guest.send_raw(header, "goodbad");
    CHECK(program.read() == "good");
    header.len = 0;
    guest.send_raw(header, "");
    CHECK(program.read().empty());
    CHECK(guest.quiet());
}

TEST_CASE("a guest that sends beyond its credit loses the connection") {
    Guest guest;
    guest.up();
    guest.send_buffer = 4096;
    guest.open(1000, 80);
    const std::string chunk(32 * KiB, 'x');
    int packets = 0;
    while (guest.count("violations") == 0 && packets < 100) {
        guest.send(Guest::header(op::rw, {1000, 80}), chunk);
        ++packets;
    }
    CHECK(guest.count("violations") == 1);
    // The buffer, and what the socket took.
    CHECK(packets >= 5);
    CHECK(packets <= 20);
    guest.run();
    std::optional<Packet> last;
    while (auto packet = guest.take())
        last = packet;
    REQUIRE(last);
    CHECK(last->header.op == op::rst);
}

TEST_CASE("a guest that answers before it was asked gets nothing for it") {
    Guest guest;
    guest.activate();  // no buffers: the request cannot leave
    auto [ours, program] = socket_pair();
    program.write("CONNECT 52\n");
    guest.device->accept(std::move(ours));
    guest.send(Guest::header(op::response, {52, 1U << 30}));
    CHECK(program.at_end());
    guest.give_buffers(8);
    CHECK(guest.quiet());  // it never heard of it
    CHECK(guest.count("violations") == 1);
}

TEST_CASE("who takes no answers is not read from beyond a bound") {
    Guest guest;
    guest.activate();
    const auto nonsense = Guest::header(op::rw, {1, 2});
    for (int i = 0; i < 250; ++i)
        guest.send(nonsense);
    guest.run();
    int used = 0;
    while (guest.tx.take_used())
        ++used;
    CHECK(used == 128);
    guest.give_buffers(250);
    guest.run(20);
    int answers = 0;
    while (const auto packet = guest.take(false)) {
        CHECK(packet->header.op == op::rst);
        ++answers;
    }
    CHECK(answers == 250);
    while (guest.tx.take_used())
        ++used;
    CHECK(used == 250);
}

TEST_CASE("there are no more connections than there may be") {
    Guest guest({.max_connections = 3});
    guest.up();
    guest.open(1, 80);
    guest.open(2, 80);
    auto [caller, ports] = guest.call(52);
    guest.send(Guest::header(op::request, {3, 80}));
    CHECK(guest.expect(op::rst).header.dst_port == 3);
    auto [ours, late] = socket_pair();
    guest.device->accept(std::move(ours));
    CHECK(late.at_end());
    CHECK(guest.count("refused_full") == 2);
    guest.send(Guest::header(op::rst, {1, 80}));
    guest.open(3, 80);
}

TEST_CASE("a buffer that cannot hold a packet, and a broken ring, are the driver's fault") {
    Guest guest;
    guest.activate();
    SUBCASE("a small buffer") {
        guest.give_buffers(1, header_size);
        guest.send(Guest::header(op::rw, {1, 2}));
    }
    SUBCASE("no writable part") {
        guest.rx.chain().append_readable(std::string_view("?")).build();
        guest.send(Guest::header(op::rw, {1, 2}));
    }
    SUBCASE("a head beyond the queue") {
        guest.rx.make_available(900);
        guest.send(Guest::header(op::rw, {1, 2}));
    }
    SUBCASE("packets beyond memory") {
        guest.tx.chain().append_raw(guest.memory.end(), 100, 0).build();
        guest.notify(1);
    }
    guest.run();
    REQUIRE(guest.driver.faults.size() == 1);
    // Nothing more happens until the reset.
    guest.give_buffers(1);
    guest.notify(1);
    CHECK(guest.driver.faults.size() == 1);
    auto [ours, program] = socket_pair();
    guest.device->accept(std::move(ours));
    CHECK(program.at_end());
}

TEST_CASE("a guest without queues is no danger") {
    Guest guest;
    std::vector<std::optional<virtio::Queue>> none(3);
    guest.activate(std::move(none));
    for (std::uint16_t queue = 0; queue < 3; ++queue)
        guest.notify(queue);
    auto [ours, program] = socket_pair();
    program.write("CONNECT 1\n");
    guest.device->accept(std::move(ours));
    guest.run();
    CHECK(guest.driver.faults.empty());
}

// virtio-vsock: bytes under credit, turns, and a queue that runs empty.
#include <doctest/doctest.h>

#include <random>

#include "tests/unit/devices/vsock/fake_guest.hpp"

using namespace masu;
using namespace masu::vsock;
using namespace masu::vsock::fake;

namespace {

std::string pattern(std::size_t size, std::uint32_t seed) {
    std::minstd_rand random(seed);
    std::string text(size, '\0');
    for (auto& character : text)
        character = static_cast<char>(random());
    return text;
}

Header credit(std::uint16_t operation, Ports ports, std::uint32_t buf_alloc,
              std::uint32_t fwd_cnt) {
    auto header = Guest::header(operation, ports);
    header.buf_alloc = buf_alloc;
    header.fwd_cnt = fwd_cnt;
    return header;
}

}  // namespace

TEST_CASE("the guest gets no more than its buffer holds, is asked once, and gets the rest") {
    Guest guest;
    guest.up();
    auto& program = guest.open(1000, 80, 10'000);
    const auto text = pattern(25'000, 1);
    program.write(text);
    std::string got;
    while (got.size() < 10'000)
        got += guest.expect(op::rw).payload;
    CHECK(got.size() == 10'000);
    guest.expect(op::credit_request);
    CHECK(guest.quiet());
    // It has read nothing yet, and says so: no second question.
    guest.send(credit(op::credit_update, {1000, 80}, 10'000, 0));
    CHECK(guest.quiet());
    guest.send(credit(op::credit_update, {1000, 80}, 30'000, 5'000));
    while (got.size() < text.size())
        got += guest.expect(op::rw).payload;
    CHECK(got == text);
    CHECK(guest.quiet());
}

TEST_CASE("a guest that lies about its buffer only stops its own connection") {
    Guest guest;
    guest.up();
    auto& liar = guest.open(1, 80, 0);
    guest.send(credit(op::credit_update, {1, 80}, 1000, 5'000'000));
    liar.write("never");
    guest.expect(op::credit_request);
    auto& honest = guest.open(2, 80);
    honest.write("heard");
    CHECK(guest.expect(op::rw).payload == "heard");
    guest.send(credit(op::credit_update, {1, 80}, 0xffff'ffff, 0));
    CHECK(guest.expect(op::rw).payload == "never");
}

TEST_CASE("the guest is told when the program has read") {
    Guest guest;
    guest.up();
    guest.send_buffer = 4096;
    auto& program = guest.open(1000, 80);
    const auto text = pattern(100 * KiB, 2);
    for (std::size_t at = 0; at < text.size(); at += 50 * KiB)
        guest.send(Guest::header(op::rw, {1000, 80}), text.substr(at, 50 * KiB));
    while (guest.take()) {
    }
    std::string got;
    while (got.size() < text.size()) {
        got += program.read();
        guest.run(2);
    }
    CHECK(got == text);
    std::optional<Packet> last;
    while (auto packet = guest.take())
        last = packet;
    REQUIRE(last);
    CHECK(last->header.op == op::credit_update);
    CHECK(last->header.fwd_cnt > 32 * KiB);
    // Asked, it says exactly how things stand.
    guest.send(Guest::header(op::credit_request, {1000, 80}));
    CHECK(guest.expect(op::credit_update).header.fwd_cnt == 100 * KiB);
}

TEST_CASE("a queue without buffers loses nothing and turns nothing round") {
    for (const auto features : {ring_features, std::uint64_t{virtio::feature_version_1}}) {
        Guest guest({}, features);
        guest.up(1);
        auto& program = guest.open(1000, 80);
        while (guest.take(false)) {
        }
        const auto text = pattern(30'000, 3);
        program.write(text);
        guest.run();
        std::string got;
        for (int i = 0; i < 100 && got.size() < text.size(); ++i) {
            while (auto packet = guest.take(false))
                got += packet->payload;
            CHECK(guest.quiet());
            guest.give_buffers(1 + i % 3);
            guest.run(1);
        }
        while (auto packet = guest.take(false))
            got += packet->payload;
        CHECK(got == text);
    }
}

TEST_CASE("connections take turns") {
    Guest guest;
    guest.up(8);  // so few buffers that each has to wait for the others
    guest.open(1, 80);
    guest.open(2, 80);
    guest.open(3, 80);
    const auto text = pattern(100'000, 4);
    guest.programs[0].write(text);
    guest.programs[1].write(text);
    guest.programs[2].write("small");
    guest.run(1);
    guest.run(1);
    std::array<std::string, 4> got;
    bool both_had_rest = false;
    for (int i = 0; i < 10'000 && got[1].size() + got[2].size() < 2 * text.size(); ++i) {
        guest.run(1);
        while (auto packet = guest.take()) {
            got[packet->header.dst_port] += packet->payload;
            if (!got[3].empty() && got[1].size() < text.size() && got[2].size() < text.size())
                both_had_rest = true;
        }
        guest.send(credit(op::credit_update, {1, 80}, 256 * KiB,
                          static_cast<std::uint32_t>(got[1].size())));
        guest.send(credit(op::credit_update, {2, 80}, 256 * KiB,
                          static_cast<std::uint32_t>(got[2].size())));
        while (guest.tx.take_used()) {
        }
    }
    CHECK(both_had_rest);
    CHECK(got[1] == text);
    CHECK(got[2] == text);
    CHECK(got[3] == "small");
}

TEST_CASE("megabytes go both ways at once and arrive as they were") {
    Guest guest;
    guest.up(256);
    guest.send_buffer = 32 * 1024;
    auto& program = guest.open(1000, 80, 64 * KiB);
    const auto down = pattern(8 * MiB, 5);
    const auto up = pattern(8 * MiB, 6);
    std::string got_down;
    std::string got_up;
    std::size_t offered = 0;
    std::size_t sent = 0;
    std::uint32_t buf_alloc = Connection::buffer_size;
    std::uint32_t fwd_cnt = 0;
    std::minstd_rand random(7);
    for (int i = 0; i < 200'000 && (got_down.size() < down.size() || got_up.size() < up.size());
         ++i) {
        if (offered < down.size())
            offered += program.offer(std::string_view(down).substr(offered, random() % 90'000));
        got_up += program.read(1 + random() % 90'000);
        guest.run(1);
        while (auto packet = guest.take()) {
            REQUIRE(packet->header.op != op::rst);
            buf_alloc = packet->header.buf_alloc;
            fwd_cnt = packet->header.fwd_cnt;
            got_down += packet->payload;
        }
        const auto room = buf_alloc - (static_cast<std::uint32_t>(sent) - fwd_cnt);
        const auto size =
            std::min<std::size_t>({room, up.size() - sent, 1 + random() % Guest::most_payload});
        guest.send(credit(size != 0 ? op::rw : op::credit_update, {1000, 80}, 64 * KiB,
                          static_cast<std::uint32_t>(got_down.size())),
                   std::string_view(up).substr(sent, size));
        sent += size;
        while (guest.tx.take_used()) {
        }
    }
    CHECK(got_down.size() == down.size());
    CHECK(got_up.size() == up.size());
    CHECK((got_down == down));
    CHECK((got_up == up));
    CHECK(guest.count("violations") == 0);
    CHECK(guest.driver.faults.empty());
}

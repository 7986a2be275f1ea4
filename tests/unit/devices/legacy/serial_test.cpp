#include <doctest/doctest.h>

#include <string>
#include <thread>

#include "devices/legacy/serial.hpp"
#include "fakes.hpp"

using namespace masu;
using namespace masu::legacy;
using namespace masu::legacy::test;

namespace {

enum : std::uint64_t { data, ier, iir, lcr, mcr, lsr, msr, scr };
constexpr std::uint64_t fcr = iir;
constexpr std::uint8_t thre = 0x20, temt = 0x40, ready = 0x01;

struct Fixture {
    std::unique_ptr<EventLoop> loop = EventLoop::create().value();
    FakeLine line;
    Metrics metrics;
    std::string output;
    unsigned batches = 0;
    unsigned rooms = 0;
    std::unique_ptr<Serial> uart = Serial::create(
                                       *loop, line, metrics,
                                       [this](std::span<const std::byte> bytes) {
                                           ++batches;
                                           for (const auto byte : bytes)
                                               output += static_cast<char>(byte);
                                       },
                                       [this] { ++rooms; })
                                       .value();

    std::uint8_t get(std::uint64_t offset) { return in(*uart, offset); }
    void put(std::uint64_t offset, std::uint8_t value) { out(*uart, offset, value); }
    void send(std::string_view text) {
        for (const char c : text)
            put(data, static_cast<std::uint8_t>(c));
    }
    std::size_t type(std::string_view text) { return uart->input(std::as_bytes(std::span(text))); }
    std::string receive_all() {
        std::string text;
        while ((get(lsr) & ready) != 0)
            text += static_cast<char>(get(data));
        return text;
    }
    std::uint64_t count(std::string_view name) { return metrics.counter("uart", name).value(); }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "serial: output reaches the sink in one batch on the loop") {
    send("hello");
    CHECK(output.empty());
    loop->run_once(1000);
    CHECK(output == "hello");
    CHECK(batches == 1);
    CHECK(count("out_bytes") == 5);
    send("!");
    uart->flush();
    CHECK(output == "hello!");
    loop->run_once(0);
    CHECK(batches == 2);
}

TEST_CASE_FIXTURE(Fixture, "serial: a kernel finds a 16550A") {
    // What Linux's autoconfig() writes and expects.
    put(ier, 0);
    CHECK((get(ier) & 0x0f) == 0);
    put(ier, 0xff);
    CHECK(get(ier) == 0x0f);
    put(ier, 0);

    put(mcr, 0x10 | 0x08 | 0x02);
    CHECK((get(msr) & 0xf0) == 0x90);
    put(mcr, 0);
    CHECK((get(msr) & 0xf0) == 0xb0);

    put(lcr, 0xbf);
    put(fcr, 0);
    put(lcr, 0);
    put(fcr, 0x01);
    CHECK((get(iir) >> 6) == 3);
    put(lcr, 0x80);
    CHECK(get(iir) != 0);  // zero would be a 16650's EFR
    put(lcr, 0);
    put(fcr, 0x01 | 0x20);
    CHECK((get(iir) >> 5) == 6);  // 7 would be a 16750
    put(scr, 0x5a);
    CHECK(get(scr) == 0x5a);
}

TEST_CASE_FIXTURE(Fixture, "serial: DLAB turns the first registers into the divisor") {
    put(lcr, 0x83);
    put(data, 0x34);
    put(ier, 0x12);
    CHECK(get(data) == 0x34);
    CHECK(get(ier) == 0x12);
    put(lcr, 0x03);
    CHECK(get(ier) == 0);
    CHECK(get(lcr) == 0x03);
    uart->flush();
    CHECK(output.empty());
}

TEST_CASE_FIXTURE(Fixture, "serial: enabling the THRE interrupt raises it, each time") {
    put(ier, 0x02);
    CHECK(line.level);
    CHECK(get(iir) == 0x02);
    CHECK_FALSE(line.level);
    CHECK(get(iir) == 0x01);  // reading took it back
    put(ier, 0x00);
    put(ier, 0x02);
    CHECK(get(iir) == 0x02);
    CHECK(line.edges == 2);
}

TEST_CASE_FIXTURE(Fixture, "serial: a sent byte raises THRE again") {
    put(ier, 0x02);
    (void)get(iir);
    send("x");
    CHECK(line.level);
    CHECK(get(lsr) == (thre | temt));
    CHECK(get(iir) == 0x02);
    CHECK_FALSE(line.level);
}

TEST_CASE_FIXTURE(Fixture, "serial: without interrupts enabled the line stays down") {
    send("x");
    CHECK(type("y") == 1);
    CHECK(get(iir) == 0x01);
    CHECK_FALSE(line.level);
    put(ier, 0x01);
    CHECK(line.level);
}

TEST_CASE_FIXTURE(Fixture, "serial: received bytes interrupt by trigger level or timeout") {
    put(fcr, 0x01 | 0x40);  // trigger at 4
    put(ier, 0x03);
    CHECK(type("abc") == 3);
    CHECK(get(iir) == 0xcc);
    CHECK(type("d") == 1);
    CHECK(get(iir) == 0xc4);
    CHECK(receive_all() == "abcd");
    CHECK(get(iir) == 0xc2);  // what had lower priority comes now
    CHECK(get(iir) == 0xc1);
    CHECK_FALSE(line.level);
}

TEST_CASE_FIXTURE(Fixture, "serial: without FIFOs one byte is received at a time") {
    CHECK(type("ab") == 2);
    CHECK(get(data) == 'a');
    CHECK(get(data) == 'b');
    CHECK(get(data) == 0);
    CHECK(get(lsr) == (thre | temt));
}

TEST_CASE_FIXTURE(Fixture, "serial: clearing the FIFO loses no more than the FIFO held") {
    put(fcr, 0x01);
    const std::string text = "0123456789abcdefXYZ";
    CHECK(type(text) == text.size());
    put(fcr, 0x01 | 0x02);
    CHECK(receive_all() == "XYZ");
}

TEST_CASE_FIXTURE(Fixture, "serial: input beyond the queue is refused, and asked for again") {
    put(fcr, 0x01);
    const std::string text(3 * serial_input_limit, 'k');
    std::size_t taken = type(text);
    CHECK(taken >= serial_input_limit);
    CHECK(taken < text.size());
    CHECK(count("in_dropped") == text.size() - taken);
    CHECK(type("z") == 0);

    std::size_t received = 0;
    while (taken < text.size()) {
        received += receive_all().size();
        loop->run_once(1000);
        REQUIRE(rooms > 0);
        rooms = 0;
        taken += type(std::string_view(text).substr(taken));
    }
    received += receive_all().size();
    loop->run_once(0);
    CHECK(received == text.size());
    CHECK(count("in_bytes") == text.size());
}

TEST_CASE_FIXTURE(Fixture, "serial: a guest that outruns the loop sees a busy transmitter") {
    put(fcr, 0x01);
    put(ier, 0x02);
    std::string sent;
    while ((get(lsr) & thre) != 0) {
        REQUIRE(sent.size() <= serial_output_limit);
        const std::string burst(serial_fifo_size, static_cast<char>('a' + sent.size() / 16 % 26));
        send(burst);
        sent += burst;
    }
    CHECK(get(lsr) == 0);
    (void)get(iir);
    CHECK_FALSE(line.level);
    // A driver that does not look: counted, never overrunning the buffer.
    send(std::string(100, '!'));
    CHECK(count("out_dropped") > 0);
    const auto accepted = count("out_bytes");
    CHECK(accepted <= serial_output_limit);

    loop->run_once(1000);
    CHECK(output.size() == accepted);
    CHECK(output.substr(0, sent.size()) == sent);
    CHECK(get(lsr) == (thre | temt));
    CHECK(line.level);
    CHECK(get(iir) == 0xc2);
    send("more");
    loop->run_once(1000);
    CHECK(output.ends_with("more"));
}

TEST_CASE_FIXTURE(Fixture, "serial: enabling THRE while busy raises nothing until drained") {
    while ((get(lsr) & thre) != 0)
        send("x");
    put(ier, 0x02);
    CHECK_FALSE(line.level);
    uart->flush();
    CHECK(line.level);
}

TEST_CASE_FIXTURE(Fixture, "serial: loopback brings bytes back and keeps the outside away") {
    put(fcr, 0x01);
    put(mcr, 0x10);
    CHECK(type("outside") == 7);
    send("in");
    CHECK(receive_all() == "in");
    send(std::string(serial_fifo_size + 1, 'o'));
    CHECK((get(lsr) & 0x02) != 0);  // overrun
    CHECK((get(lsr) & 0x02) == 0);
    CHECK(receive_all().size() == serial_fifo_size);
    put(mcr, 0);
    CHECK(receive_all() == "outside");
    uart->flush();
    CHECK(output.empty());
}

TEST_CASE_FIXTURE(Fixture, "serial: modem status changes and overruns interrupt by priority") {
    put(mcr, 0x10);
    (void)get(msr);
    put(ier, 0x0f);
    put(mcr, 0x12);  // RTS comes back as CTS
    send("a");
    send("b");  // no FIFO: overrun
    CHECK(get(iir) == 0x06);
    (void)get(lsr);
    CHECK(get(iir) == 0x04);
    (void)get(data);
    CHECK(get(iir) == 0x02);
    CHECK(get(iir) == 0x00);
    CHECK(get(msr) == 0x11);
    CHECK(get(msr) == 0x10);
    CHECK(get(iir) == 0x01);
    put(mcr, 0x16);  // OUT1 as ring: only its end is reported
    CHECK(get(msr) == 0x50);
    put(mcr, 0x12);
    CHECK(get(msr) == 0x14);
}

TEST_CASE_FIXTURE(Fixture, "serial: wide accesses reach the registers one by one") {
    const std::array<std::byte, 2> word{std::byte{'w'}, std::byte{0x05}};
    uart->write(data, word);
    CHECK(get(ier) == 0x05);
    uart->flush();
    CHECK(output == "w");
    trample(*uart, serial_port_count);
}

TEST_CASE_FIXTURE(Fixture, "serial: a restored one has the same registers and line") {
    put(fcr, 0xc1);
    put(ier, 0x01);
    CHECK(type("q") == 1);
    const auto state = uart->save();

    FakeLine other_line;
    auto other = Serial::create(*loop, other_line, metrics, [](auto) {}).value();
    other->restore(state);
    CHECK(other_line.level);
    CHECK(in(*other, iir) == 0xcc);
    CHECK(in(*other, data) == 'q');
    CHECK_FALSE(other_line.level);
}

TEST_CASE_FIXTURE(Fixture, "serial: nothing is lost between two writing threads and the loop") {
    constexpr std::size_t each = 20'000;
    std::array<std::jthread, 2> writers;
    std::atomic<unsigned> running{2};
    for (auto& writer : writers)
        writer = std::jthread([this, &running] {
            for (std::size_t i = 0; i < each; ++i) {
                while ((get(lsr) & thre) == 0)
                    std::this_thread::yield();
                put(data, 'x');
            }
            --running;
        });
    while (running > 0)
        loop->run_once(10);
    uart->flush();
    CHECK(output.size() == 2 * each);
    CHECK(count("out_dropped") == 0);
}

#include <doctest/doctest.h>

#include <vector>

#include "devices/legacy/i8042.hpp"
#include "fakes.hpp"

using namespace masu;
using namespace masu::legacy;
using namespace masu::legacy::test;

namespace {

constexpr std::uint64_t data = 0, port_b = 1, command = 4;

struct Fixture {
    FakeLine line;
    unsigned resets = 0;
    I8042 controller{line, [this] { ++resets; }};

    std::uint8_t status() { return in(controller, command); }
    // Every byte that waits.
    std::vector<unsigned> drain() {
        std::vector<unsigned> bytes;
        while ((status() & 1) != 0 && bytes.size() < 100)
            bytes.push_back(in(controller, data));
        return bytes;
    }
    std::vector<unsigned> ask_controller(std::uint8_t value) {
        out(controller, command, value);
        return drain();
    }
    std::vector<unsigned> ask_keyboard(std::uint8_t value) {
        out(controller, data, value);
        return drain();
    }
    void set_control(std::uint8_t value) {
        out(controller, command, 0x60);
        out(controller, data, value);
    }
};

using Replies = std::vector<unsigned>;

}  // namespace

TEST_CASE_FIXTURE(Fixture, "i8042: a driver's probe is answered at every step") {
    CHECK(status() == 0x10);
    CHECK(ask_controller(0xaa) == Replies{0x55});
    set_control(0x54);
    CHECK(ask_controller(0x20) == Replies{0x54});
    CHECK(ask_controller(0xab) == Replies{0x00});
    // No mouse: its loop test comes back on the wrong side, its port test fails.
    out(controller, command, 0xd3);
    out(controller, data, 0x5a);
    CHECK((status() & 0x20) == 0);
    CHECK(drain() == Replies{0x5a});
    CHECK(ask_controller(0xa9) == Replies{0x01});
    CHECK(resets == 0);
}

TEST_CASE_FIXTURE(Fixture, "i8042: a reply replaces one that nobody read, but no key") {
    out(controller, command, 0xd3);
    out(controller, data, 0x5a);
    CHECK(ask_controller(0xa9) == Replies{0x01});
    out(controller, data, 0xf4);
    out(controller, command, 0xab);
    CHECK(ask_controller(0xaa) == Replies{0x55, 0xfa});
}

TEST_CASE_FIXTURE(Fixture, "i8042: the keyboard answers its own commands") {
    CHECK(ask_keyboard(0xff) == Replies{0xfa, 0xaa});
    CHECK(ask_keyboard(0xf2) == Replies{0xfa, 0xab, 0x83});
    CHECK(ask_keyboard(0xed) == Replies{0xfa});
    CHECK(ask_keyboard(0x07) == Replies{0xfa});
    CHECK(ask_keyboard(0xf0) == Replies{0xfa});
    CHECK(ask_keyboard(0x00) == Replies{0xfa, 0x02});
    CHECK(ask_keyboard(0xee) == Replies{0xee});
    CHECK(ask_keyboard(0x00) == Replies{0xfe});
}

TEST_CASE_FIXTURE(Fixture, "i8042: each byte for the guest is an edge of its own") {
    set_control(0x01);
    out(controller, data, 0xf2);
    CHECK(line.edges == 1);
    CHECK(in(controller, data) == 0xfa);
    CHECK(line.edges == 2);
    CHECK(drain().size() == 2);
    CHECK(line.edges == 3);
    CHECK_FALSE(line.level);
}

TEST_CASE_FIXTURE(Fixture, "i8042: a disabled keyboard holds its bytes back") {
    out(controller, command, 0xad);
    CHECK(ask_keyboard(0xf4).empty());
    out(controller, command, 0xae);
    CHECK(drain() == Replies{0xfa});
}

TEST_CASE_FIXTURE(Fixture, "i8042: the reset line has three handles") {
    out(controller, command, 0xfe);
    CHECK(resets == 1);
    out(controller, command, 0xd1);
    out(controller, data, 0xfe);
    CHECK(resets == 2);
    out(controller, command, 0xf0);
    CHECK(resets == 3);
    out(controller, command, 0xff);  // pulses nothing
    out(controller, command, 0xd1);
    out(controller, data, 0xdf);
    CHECK(resets == 3);
    CHECK(ask_controller(0xd0) == Replies{0xdf});
}

TEST_CASE_FIXTURE(Fixture, "i8042: port B never lets a kernel wait for timer 2") {
    CHECK((in(controller, port_b) & 0x20) != 0);
    CHECK(in(controller, 2) == 0xff);
}

TEST_CASE_FIXTURE(Fixture, "i8042: ctrl-alt-del reaches a listening driver only") {
    CHECK_FALSE(controller.send_ctrl_alt_del());
    set_control(0x01);
    CHECK_FALSE(controller.send_ctrl_alt_del());
    CHECK(ask_keyboard(0xf4) == Replies{0xfa});
    CHECK(controller.send_ctrl_alt_del());
    CHECK(line.level);
    CHECK(drain() == Replies{0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xf0, 0x11, 0xf0, 0x14});
    set_control(0x41);
    CHECK(controller.send_ctrl_alt_del());
    CHECK(drain() == Replies{0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d});
}

TEST_CASE_FIXTURE(Fixture, "i8042: keys that nobody reads do not pile up") {
    set_control(0x41);
    (void)ask_keyboard(0xf4);
    unsigned sent = 0;
    while (sent < 100 && controller.send_ctrl_alt_del())
        ++sent;
    CHECK(sent < 10);
    CHECK(drain().size() == sent * 8);
}

TEST_CASE_FIXTURE(Fixture, "i8042: a guest that only asks and never reads is bounded") {
    for (int i = 0; i < 1000; ++i) {
        out(controller, command, 0x20);
        out(controller, data, 0xf2);
    }
    CHECK(drain().size() <= 2U * key_queue_size + 1);
    trample(controller, I8042::port_count);
}

TEST_CASE_FIXTURE(Fixture, "i8042: a restored one goes on where the saved one stopped") {
    set_control(0x01);
    out(controller, data, 0xf2);
    FakeLine other_line;
    I8042 other(other_line, [] {});
    auto state = controller.save();
    other.restore(state);
    CHECK(other_line.level);
    CHECK(in(other, data) == 0xfa);
    CHECK(in(other, data) == 0xab);
    // A damaged state cannot make it read beyond its queue.
    state.keyboard.head = 255;
    state.keyboard.count = 255;
    other.restore(state);
    for (int i = 0; i < 300; ++i)
        (void)in(other, data);
    CHECK((in(other, command) & 1) == 0);
}

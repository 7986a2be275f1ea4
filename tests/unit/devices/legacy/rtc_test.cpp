#include <doctest/doctest.h>

#include "devices/legacy/rtc.hpp"
#include "fakes.hpp"

using namespace masu;
using namespace masu::legacy;
using namespace masu::legacy::test;

namespace {

constexpr std::uint64_t leap_day = 1'709'210'096;  // 2024-02-29 12:34:56 UTC, a Thursday

struct Fixture {
    FakeClock clock;
    Rtc rtc{clock};

    Fixture() { clock.seconds = leap_day; }
    std::uint8_t get(std::uint8_t index) {
        out(rtc, 0, index);
        return in(rtc, 1);
    }
    void set(std::uint8_t index, std::uint8_t value) {
        out(rtc, 0, index);
        out(rtc, 1, value);
    }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "rtc: tells the wall clock's UTC in BCD and 24 hours") {
    CHECK(get(0x00) == 0x56);
    CHECK(get(0x02) == 0x34);
    CHECK(get(0x04) == 0x12);
    CHECK(get(0x06) == 5);
    CHECK(get(0x07) == 0x29);
    CHECK(get(0x08) == 0x02);
    CHECK(get(0x09) == 0x24);
    CHECK(get(0x32) == 0x20);
    ++clock.seconds;
    CHECK(get(0x00) == 0x57);
}

TEST_CASE_FIXTURE(Fixture, "rtc: the status registers never make a kernel wait") {
    CHECK((get(0x0a) & 0x80) == 0);
    set(0x0a, 0xa6);
    CHECK(get(0x0a) == 0x26);
    CHECK(get(0x0b) == 0x02);
    CHECK(get(0x0c) == 0);
    set(0x0d, 0);
    CHECK(get(0x0d) == 0x80);
    CHECK(in(rtc, 0) == 0xff);
}

TEST_CASE_FIXTURE(Fixture, "rtc: the NMI mask does not change the register") {
    CHECK(get(0x80 | 0x02) == 0x34);
}

TEST_CASE_FIXTURE(Fixture, "rtc: binary and 12-hour modes follow status register B") {
    set(0x0b, 0x06);
    CHECK(get(0x00) == 56);
    CHECK(get(0x09) == 24);
    set(0x0b, 0x00);
    CHECK(get(0x04) == 0x92);  // 12 PM
    clock.seconds += 12 * 3600;
    CHECK(get(0x04) == 0x12);  // 12 AM
    clock.seconds += 13 * 3600;
    CHECK(get(0x04) == 0x81);  // 1 PM
}

TEST_CASE_FIXTURE(Fixture, "rtc: a guest sets its own time, as Linux does") {
    set(0x0b, 0x82);
    CHECK(get(0x00) == 0x56);
    ++clock.seconds;
    CHECK(get(0x00) == 0x56);  // halted
    set(0x00, 0x00);
    set(0x02, 0x59);
    set(0x04, 0x23);
    set(0x07, 0x31);
    set(0x08, 0x12);
    set(0x09, 0x99);
    set(0x32, 0x19);
    set(0x0b, 0x02);
    clock.seconds += 60;
    CHECK(get(0x04) == 0x00);
    CHECK(get(0x07) == 0x01);
    CHECK(get(0x08) == 0x01);
    CHECK(get(0x09) == 0x00);
    CHECK(get(0x32) == 0x20);
    CHECK(get(0x06) == 7);  // 2000-01-01 was a Saturday
}

TEST_CASE_FIXTURE(Fixture, "rtc: a write without halting the clock sets it at once") {
    set(0x02, 0x00);
    CHECK(get(0x02) == 0x00);
    clock.seconds += 60;
    CHECK(get(0x02) == 0x01);
    CHECK(get(0x04) == 0x12);
}

TEST_CASE_FIXTURE(Fixture, "rtc: nonsense digits are carried, not trusted") {
    for (std::uint8_t index = 0; index < cmos_size; ++index) {
        set(index, 0xff);
        (void)get(index);
    }
    set(0x0b, 0x02);
    for (std::uint8_t index = 0; index < cmos_size; ++index) {
        set(index, 0x00);
        (void)get(index);
    }
    trample(rtc, Rtc::port_count);
    CHECK(get(0x0d) == 0x80);
}

TEST_CASE_FIXTURE(Fixture, "rtc: memory and alarm bytes keep what is written") {
    set(0x01, 0x15);
    set(0x40, 0xab);
    set(0x7f, 0xcd);
    CHECK(get(0x01) == 0x15);
    CHECK(get(0x40) == 0xab);
    CHECK(get(0x7f) == 0xcd);

    Rtc other(clock);
    other.restore(rtc.save());
    out(other, 0, 0x40);
    CHECK(in(other, 1) == 0xab);
}

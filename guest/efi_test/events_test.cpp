// Events, timers, task priority levels, Stall, the watchdog.
#include "guest/efi_test/app.hpp"

namespace efi_test {
namespace {

struct Record {
    unsigned calls = 0;
    efi::Tpl level = 0;
};

efi::Tpl level_now() {
    const auto level = bs->raise_tpl(efi::tpl_high);
    bs->restore_tpl(level);
    return level;
}

void EFIAPI note(efi::Event, void* context) {
    auto& record = *static_cast<Record*>(context);
    ++record.calls;
    record.level = level_now();
}

void EFIAPI satisfy(efi::Event event, void* context) {
    ++static_cast<Record*>(context)->calls;
    (void)bs->signal_event(event);
}

void test_create() {
    efi::Event event = nullptr;
    Record record;
    CHECK(bs->create_event(0, 0, nullptr, nullptr, nullptr) == Status::InvalidParameter);
    CHECK(bs->create_event(0x300, efi::tpl_callback, note, &record, &event) ==
          Status::InvalidParameter);
    CHECK(bs->create_event(efi::event_notify_signal, efi::tpl_callback, nullptr, nullptr, &event) ==
          Status::InvalidParameter);
    CHECK(bs->create_event(efi::event_notify_signal, efi::tpl_application, note, &record, &event) ==
          Status::InvalidParameter);
    CHECK(bs->close_event(&record) == Status::InvalidParameter);
    CHECK(bs->signal_event(&record) == Status::InvalidParameter);
    CHECK(bs->check_event(&record) == Status::InvalidParameter);
    CHECK(bs->set_timer(&record, efi::TimerDelay::Cancel, 0) == Status::InvalidParameter);
}

void test_signals() {
    efi::Event event = nullptr;
    Record record;
    CHECK(bs->create_event(efi::event_notify_signal, efi::tpl_notify, note, &record, &event) ==
          Status::Success);
    CHECK(bs->check_event(event) == Status::InvalidParameter);
    CHECK(bs->set_timer(event, efi::TimerDelay::Cancel, 0) == Status::InvalidParameter);
    CHECK(bs->signal_event(event) == Status::Success);
    CHECK(record.calls == 1 && record.level == efi::tpl_notify);
    // Held back while the level is as high as its own.
    const auto old = bs->raise_tpl(efi::tpl_notify);
    CHECK(old == efi::tpl_application);
    CHECK(bs->signal_event(event) == Status::Success && record.calls == 1);
    bs->restore_tpl(old);
    CHECK(record.calls == 2 && level_now() == efi::tpl_application);
    CHECK(bs->close_event(event) == Status::Success);
    CHECK(bs->close_event(event) == Status::InvalidParameter);
    // A plain event is signaled once for each signal.
    CHECK(bs->create_event(0, 0, nullptr, nullptr, &event) == Status::Success);
    CHECK(bs->check_event(event) == Status::NotReady);
    CHECK(bs->signal_event(event) == Status::Success);
    CHECK(bs->check_event(event) == Status::Success);
    CHECK(bs->check_event(event) == Status::NotReady);
    CHECK(bs->close_event(event) == Status::Success);
    // One that waits asks its function.
    record = {};
    CHECK(bs->create_event(efi::event_notify_wait, efi::tpl_callback, satisfy, &record, &event) ==
          Status::Success);
    CHECK(bs->check_event(event) == Status::Success && record.calls == 1);
    CHECK(bs->close_event(event) == Status::Success);
}

void test_groups() {
    constexpr efi::Guid group{0x4d415355, 1, 2, {3, 4, 5, 6, 7, 8, 9, 10}};
    efi::Event a = nullptr;
    efi::Event b = nullptr;
    Record record;
    CHECK(bs->create_event_ex(efi::event_notify_signal, efi::tpl_callback, note, &record, &group,
                              &a) == Status::Success);
    CHECK(bs->create_event_ex(efi::event_notify_signal, efi::tpl_notify, note, &record, &group,
                              &b) == Status::Success);
    CHECK(bs->signal_event(a) == Status::Success && record.calls == 2);
    // The higher level was first.
    CHECK(record.level == efi::tpl_callback);
    CHECK(bs->close_event(a) == Status::Success && bs->close_event(b) == Status::Success);
}

void test_timers() {
    efi::Event timer = nullptr;
    std::uint64_t index = 99;
    CHECK(bs->create_event(efi::event_timer, 0, nullptr, nullptr, &timer) == Status::Success);
    CHECK(bs->wait_for_event(0, &timer, &index) == Status::InvalidParameter);
    CHECK(bs->set_timer(timer, static_cast<efi::TimerDelay>(9), 1) == Status::InvalidParameter);
    CHECK(bs->set_timer(timer, efi::TimerDelay::Relative, 20'000) == Status::Success);  // 2 ms
    CHECK(bs->wait_for_event(1, &timer, &index) == Status::Success && index == 0);
    CHECK(bs->check_event(timer) == Status::NotReady);
    CHECK(bs->set_timer(timer, efi::TimerDelay::Periodic, 10'000) == Status::Success);
    CHECK(bs->wait_for_event(1, &timer, &index) == Status::Success);
    CHECK(bs->wait_for_event(1, &timer, &index) == Status::Success);
    CHECK(bs->set_timer(timer, efi::TimerDelay::Cancel, 0) == Status::Success);
    CHECK(bs->stall(3000) == Status::Success);
    CHECK(bs->check_event(timer) == Status::NotReady);
    const auto old = bs->raise_tpl(efi::tpl_callback);
    CHECK(bs->wait_for_event(1, &timer, &index) == Status::Unsupported);
    bs->restore_tpl(old);
    CHECK(bs->close_event(timer) == Status::Success);
    CHECK(bs->set_watchdog_timer(0, 0, 0, nullptr) == Status::Success);
    CHECK(bs->set_watchdog_timer(100, 0x10000, 2, nullptr) == Status::InvalidParameter);
    std::uint64_t first = 0;
    std::uint64_t second = 0;
    CHECK(bs->get_next_monotonic_count(&first) == Status::Success &&
          bs->get_next_monotonic_count(&second) == Status::Success && second > first);
    CHECK(bs->get_next_monotonic_count(nullptr) == Status::InvalidParameter);
}

}  // namespace

void test_events() {
    test_create();
    test_signals();
    test_groups();
    test_timers();
}

}  // namespace efi_test

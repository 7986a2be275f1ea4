// The event loop: descriptors, timers, posted work, and handlers that end themselves.
#include <doctest/doctest.h>
#include <sys/epoll.h>

#include <optional>
#include <thread>
#include <vector>

#include "base/event_loop.hpp"

using namespace masu;

TEST_CASE("a signalled eventfd calls its handler until the watch ends") {
    auto loop = *EventLoop::create();
    auto event = *EventFd::create();
    int calls = 0;
    {
        auto watch = *loop->watch(event.fd(), EPOLLIN,
                                  [&](auto) { calls += static_cast<int>(event.take()); });
        event.signal();
        event.signal();
        loop->run_once(1000);
        CHECK(calls == 2);
        watch.set_events(0);
        event.signal();
        loop->run_once(0);
        CHECK(calls == 2);
        watch.set_events(EPOLLIN);
        loop->run_once(1000);
        CHECK(calls == 3);
    }
    event.signal();
    loop->run_once(0);
    CHECK(calls == 3);
}

TEST_CASE("a handler may end its own watch") {
    auto loop = *EventLoop::create();
    auto event = *EventFd::create();
    EventLoop::Watch watch;
    bool after = false;
    watch = *loop->watch(event.fd(), EPOLLIN, [&](auto) {
        watch = EventLoop::Watch();
        after = true;
    });
    event.signal();
    loop->run_once(1000);
    CHECK(after);
    CHECK_FALSE(watch);
}

TEST_CASE("posted work runs on the loop's thread in order, and stop ends run") {
    auto loop = *EventLoop::create();
    std::vector<int> order;
    std::thread other([&] {
        for (int i = 0; i < 3; ++i)
            loop->post([&order, i] { order.push_back(i); });
        loop->post([&] { loop->stop(); });
    });
    loop->run();
    other.join();
    CHECK(order == std::vector{0, 1, 2});
}

TEST_CASE("a timer fires once, and a disarmed one never") {
    auto loop = *EventLoop::create();
    int fired = 0;
    auto timer = *loop->timer([&] { ++fired; });
    timer.arm(0);
    loop->run_once(1000);
    CHECK(fired == 1);
    loop->run_once(0);
    CHECK(fired == 1);
    timer.arm(1'000'000'000'000);
    timer.disarm();
    loop->run_once(0);
    CHECK(fired == 1);
}

TEST_CASE("timers fire in the order of their deadlines, whatever was set before") {
    auto loop = *EventLoop::create();
    std::vector<int> order;
    auto first = *loop->timer([&] { order.push_back(1); });
    auto second = *loop->timer([&] { order.push_back(2); });
    auto third = *loop->timer([&] { order.push_back(3); });
    third.arm(3'000'000);
    second.arm(1'000'000'000'000);
    first.arm(1'000'000);
    second.arm(2'000'000);
    while (order.size() < 3)
        loop->run_once(1000);
    CHECK(order == std::vector{1, 2, 3});
    first.arm(1'000'000);
    first.arm(5'000'000);  // later: the first deadline no longer counts
    second.arm(3'000'000);
    while (order.size() < 5)
        loop->run_once(1000);
    CHECK(order == std::vector{1, 2, 3, 2, 1});
}

TEST_CASE("a timer's handler may arm, disarm and destroy timers, itself among them") {
    auto loop = *EventLoop::create();
    int calls = 0;
    std::optional<EventLoop::Timer> again;
    again = *loop->timer([&] {
        if (++calls < 3)
            again->arm(0);
        else
            again.reset();
    });
    auto disarmed = *loop->timer([&] { calls += 100; });
    auto disarming = *loop->timer([&] { disarmed.disarm(); });
    disarming.arm(0);
    disarmed.arm(1000);
    again->arm(0);
    while (again)
        loop->run_once(1000);
    loop->run_once(0);
    CHECK(calls == 3);
}

TEST_CASE("a timer is armed from another thread, and moved") {
    auto loop = *EventLoop::create();
    auto timer = *loop->timer([&] { loop->stop(); });
    auto moved = std::move(timer);
    std::thread other([&] { moved.arm(0); });
    loop->run();
    other.join();
}

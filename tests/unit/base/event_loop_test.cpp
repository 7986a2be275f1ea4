// The event loop: descriptors, timers, posted work, and handlers that end themselves.
#include <doctest/doctest.h>
#include <sys/epoll.h>

#include <thread>

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

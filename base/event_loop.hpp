// One thread's event loop on epoll: descriptors, timers, and work posted from other threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/clock.hpp"
#include "base/fd.hpp"

namespace masu {

// All methods but post() and stop() belong to the thread that calls run() (or to the one that sets
// the loop up before run()). watch() and Timer creation may also be called from other threads
// while the loop runs: the table is locked. Handlers run on the loop's thread, one at a time.
class EventLoop {
  public:
    using Handler = std::function<void(std::uint32_t events)>;  // EPOLLIN, EPOLLOUT, ...

    // Keeps a descriptor watched; ends the watch when destroyed. Destroy on the loop's thread, or
    // while the loop does not run; inside its own handler is allowed.
    class Watch {
      public:
        Watch() noexcept = default;
        Watch(Watch&& other) noexcept;
        Watch& operator=(Watch&& other) noexcept;
        ~Watch();
        // Other events for the same descriptor; 0 pauses it.
        void set_events(std::uint32_t events);
        explicit operator bool() const noexcept { return loop_ != nullptr; }

      private:
        friend class EventLoop;
        Watch(EventLoop* loop, std::uint64_t id, int fd) noexcept : loop_(loop), id_(id), fd_(fd) {}
        EventLoop* loop_ = nullptr;
        std::uint64_t id_ = 0;
        int fd_ = -1;
    };

    // One-shot timer; arm() replaces an earlier deadline. Destroying it cancels it, on the threads
    // on which a Watch may be destroyed. arm() and disarm(): any thread.
    class Timer {
      public:
        Timer(Timer&& other) noexcept;
        Timer& operator=(Timer&& other) noexcept;
        ~Timer();
        void arm(Nanoseconds delay);  // from now; 0 means at once
        void disarm();

      private:
        friend class EventLoop;
        Timer(EventLoop* loop, std::uint64_t id) noexcept : loop_(loop), id_(id) {}
        EventLoop* loop_ = nullptr;
        std::uint64_t id_ = 0;
    };

    [[nodiscard]] static Result<std::unique_ptr<EventLoop>> create();
    EventLoop(const EventLoop&) = delete;
    EventLoop& operator=(const EventLoop&) = delete;

    // The descriptor is borrowed: it must outlive the Watch.
    [[nodiscard]] Result<Watch> watch(int fd, std::uint32_t events, Handler handler);
    [[nodiscard]] Result<Timer> timer(std::function<void()> handler);  // disarmed

    // Runs `work` on the loop's thread, in order of posting. Any thread.
    void post(std::function<void()> work);

    void run();   // until stop()
    void stop();  // any thread
    // Handles what is ready now, waiting at most `timeout_ms` (-1: no limit) for the first event.
    void run_once(int timeout_ms);

  private:
    using TimerHandler = std::function<void()>;
    struct Deadline {
        std::shared_ptr<TimerHandler> handler;
        Nanoseconds time = 0;  // of the monotonic clock; 0: disarmed
    };

    EventLoop(Fd epoll, EventFd wake) noexcept : epoll_(std::move(epoll)), wake_(std::move(wake)) {}
    void remove(std::uint64_t id, int fd) noexcept;
    void run_posted();
    [[nodiscard]] Result<> make_alarm();
    void set_deadline(std::uint64_t timer, Nanoseconds time) noexcept;
    void remove_timer(std::uint64_t timer) noexcept;
    void run_timers();
    [[nodiscard]] std::shared_ptr<TimerHandler> take_due(std::uint64_t timer, Nanoseconds now);
    void set_alarm() noexcept;  // under mutex_

    Fd epoll_;
    EventFd wake_;
    Fd alarm_;  // a timerfd, set for the earliest deadline or earlier; made with the first timer
    std::mutex mutex_;  // guards the rest but stop_, and the setting of alarm_
    std::unordered_map<std::uint64_t, std::shared_ptr<Handler>> handlers_;
    std::map<std::uint64_t, Deadline> timers_;
    Nanoseconds alarm_time_ = 0;  // 0: not set
    std::uint64_t next_id_ = 2;   // of a watch or a timer
    std::vector<std::function<void()>> posted_;
    std::atomic<bool> stop_{false};
};

}  // namespace masu

// The epoll loop.
#include "base/event_loop.hpp"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

namespace masu {
namespace {

// Of what is no Watch.
constexpr std::uint64_t wake_id = 0;
constexpr std::uint64_t alarm_id = 1;
constexpr Nanoseconds second = 1'000'000'000;
constexpr Nanoseconds longest_delay = 100'000'000 * second;  // three years

}  // namespace

EventLoop::Watch::Watch(Watch&& other) noexcept
    : loop_(std::exchange(other.loop_, nullptr)), id_(other.id_), fd_(other.fd_) {}

EventLoop::Watch& EventLoop::Watch::operator=(Watch&& other) noexcept {
    std::swap(loop_, other.loop_);
    std::swap(id_, other.id_);
    std::swap(fd_, other.fd_);
    return *this;
}

EventLoop::Watch::~Watch() {
    if (loop_ != nullptr)
        loop_->remove(id_, fd_);
}

void EventLoop::Watch::set_events(std::uint32_t events) {
    if (loop_ == nullptr)
        return;
    epoll_event event{.events = events, .data = {.u64 = id_}};
    ::epoll_ctl(loop_->epoll_.get(), EPOLL_CTL_MOD, fd_, &event);
}

EventLoop::Timer::Timer(Timer&& other) noexcept
    : loop_(std::exchange(other.loop_, nullptr)), id_(other.id_) {}

EventLoop::Timer& EventLoop::Timer::operator=(Timer&& other) noexcept {
    std::swap(loop_, other.loop_);
    std::swap(id_, other.id_);
    return *this;
}

EventLoop::Timer::~Timer() {
    if (loop_ != nullptr)
        loop_->remove_timer(id_);
}

void EventLoop::Timer::arm(Nanoseconds delay) {
    const auto now = SystemClock().now();
    loop_->set_deadline(id_, now + std::min(delay, longest_delay));
}

void EventLoop::Timer::disarm() {
    loop_->set_deadline(id_, 0);
}

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
    Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll)
        return fail_errno(errno, "cannot create an epoll instance");
    auto wake = TRY(EventFd::create());
    epoll_event event{.events = EPOLLIN, .data = {.u64 = wake_id}};
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.fd(), &event) < 0)
        return fail_errno(errno, "cannot watch the wake-up eventfd");
    return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll), std::move(wake)));
}

Result<EventLoop::Watch> EventLoop::watch(int fd, std::uint32_t events, Handler handler) {
    std::uint64_t id = 0;
    {
        const std::lock_guard lock(mutex_);
        id = next_id_++;
        handlers_.emplace(id, std::make_shared<Handler>(std::move(handler)));
    }
    epoll_event event{.events = events, .data = {.u64 = id}};
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) < 0) {
        const int error = errno;
        const std::lock_guard lock(mutex_);
        handlers_.erase(id);
        return fail_errno(error, "cannot watch descriptor {}", fd);
    }
    return Watch(this, id, fd);
}

Result<EventLoop::Timer> EventLoop::timer(TimerHandler handler) {
    const std::lock_guard lock(mutex_);
    if (!alarm_)
        TRY(make_alarm());
    const auto id = next_id_++;
    timers_.emplace(id, Deadline{std::make_shared<TimerHandler>(std::move(handler)), 0});
    return Timer(this, id);
}

Result<> EventLoop::make_alarm() {
    Fd fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!fd)
        return fail_errno(errno, "cannot create a timer");
    epoll_event event{.events = EPOLLIN, .data = {.u64 = alarm_id}};
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event) < 0)
        return fail_errno(errno, "cannot watch a timer");
    alarm_ = std::move(fd);
    return {};
}

// An alarm that comes too early finds nothing due and is set anew; so it need not be moved to later
// whenever a deadline is.
void EventLoop::set_deadline(std::uint64_t timer, Nanoseconds time) noexcept {
    const std::lock_guard lock(mutex_);
    timers_.at(timer).time = time;
    if (time == 0 || (alarm_time_ != 0 && alarm_time_ <= time))
        return;
    alarm_time_ = time;
    set_alarm();
}

void EventLoop::set_alarm() noexcept {
    itimerspec spec{};
    spec.it_value.tv_sec = static_cast<time_t>(alarm_time_ / second);
    spec.it_value.tv_nsec = static_cast<long>(alarm_time_ % second);
    ::timerfd_settime(alarm_.get(), TFD_TIMER_ABSTIME, &spec, nullptr);
}

void EventLoop::remove_timer(std::uint64_t timer) noexcept {
    Deadline dying;  // destroyed after the lock is released
    const std::lock_guard lock(mutex_);
    if (const auto found = timers_.find(timer); found != timers_.end()) {
        dying = std::move(found->second);
        timers_.erase(found);
    }
}

// Null: it was disarmed, armed for later or destroyed by a handler before it.
std::shared_ptr<EventLoop::TimerHandler> EventLoop::take_due(std::uint64_t timer, Nanoseconds now) {
    const std::lock_guard lock(mutex_);
    const auto found = timers_.find(timer);
    if (found == timers_.end() || found->second.time == 0 || found->second.time > now)
        return nullptr;
    found->second.time = 0;
    return found->second.handler;
}

// What its handler arms again has its turn in the next round at the earliest.
void EventLoop::run_timers() {
    std::uint64_t expirations = 0;
    std::ignore = ::read(alarm_.get(), &expirations, sizeof expirations);
    const auto now = SystemClock().now();
    std::vector<std::pair<Nanoseconds, std::uint64_t>> due;
    {
        const std::lock_guard lock(mutex_);
        for (const auto& [id, deadline] : timers_)
            if (deadline.time != 0 && deadline.time <= now)
                due.emplace_back(deadline.time, id);
    }
    std::ranges::sort(due);
    for (const auto& [time, id] : due)
        if (const auto handler = take_due(id, now))
            (*handler)();
    const std::lock_guard lock(mutex_);
    alarm_time_ = 0;
    for (const auto& [id, deadline] : timers_)
        if (deadline.time != 0 && (alarm_time_ == 0 || deadline.time < alarm_time_))
            alarm_time_ = deadline.time;
    if (alarm_time_ != 0)
        set_alarm();
}

void EventLoop::post(std::function<void()> work) {
    {
        const std::lock_guard lock(mutex_);
        posted_.push_back(std::move(work));
    }
    wake_.signal();
}

void EventLoop::run() {
    while (!stop_.load(std::memory_order_acquire))
        run_once(-1);
    stop_.store(false, std::memory_order_release);
}

void EventLoop::stop() {
    stop_.store(true, std::memory_order_release);
    wake_.signal();
}

void EventLoop::run_once(int timeout_ms) {
    std::array<epoll_event, 32> events{};
    const int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), timeout_ms);
    for (int i = 0; i < count; ++i) {
        const auto event = events[static_cast<std::size_t>(i)];
        const std::uint64_t id = event.data.u64;  // a copy: epoll_event is packed
        if (id == wake_id) {
            wake_.take();
            run_posted();
            continue;
        }
        if (id == alarm_id) {
            run_timers();
            continue;
        }
        std::shared_ptr<Handler> handler;  // keeps it alive if the handler ends its own watch
        {
            const std::lock_guard lock(mutex_);
            const auto found = handlers_.find(id);
            if (found == handlers_.end())
                continue;  // ended by an earlier handler of this round
            handler = found->second;
        }
        (*handler)(event.events);
    }
}

void EventLoop::remove(std::uint64_t id, int fd) noexcept {
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
    std::shared_ptr<Handler> dying;  // destroyed after the lock is released
    const std::lock_guard lock(mutex_);
    if (const auto found = handlers_.find(id); found != handlers_.end()) {
        dying = std::move(found->second);
        handlers_.erase(found);
    }
}

void EventLoop::run_posted() {
    std::vector<std::function<void()>> work;
    {
        const std::lock_guard lock(mutex_);
        work.swap(posted_);
    }
    for (const auto& item : work)
        item();
}

}  // namespace masu

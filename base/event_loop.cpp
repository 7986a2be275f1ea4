// The epoll loop.
#include "base/event_loop.hpp"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <array>

namespace masu {

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

void EventLoop::Timer::arm(Nanoseconds delay) {
    if (delay == 0)
        delay = 1;  // a zero it_value would disarm
    itimerspec spec{};
    spec.it_value.tv_sec = static_cast<time_t>(delay / 1'000'000'000U);
    spec.it_value.tv_nsec = static_cast<long>(delay % 1'000'000'000U);
    ::timerfd_settime(fd_.get(), 0, &spec, nullptr);
}

void EventLoop::Timer::disarm() {
    const itimerspec none{};
    ::timerfd_settime(fd_.get(), 0, &none, nullptr);
}

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
    Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll)
        return fail_errno(errno, "cannot create an epoll instance");
    auto wake = TRY(EventFd::create());
    epoll_event event{.events = EPOLLIN, .data = {.u64 = 0}};  // id 0 is the wake-up
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

Result<EventLoop::Timer> EventLoop::timer(std::function<void()> handler) {
    Fd fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!fd)
        return fail_errno(errno, "cannot create a timer");
    const int number = fd.get();
    auto watch = TRY(this->watch(number, EPOLLIN, [number, handler = std::move(handler)](auto) {
        std::uint64_t expirations = 0;
        // Nothing to read: the timer was re-armed or disarmed after epoll reported it.
        if (::read(number, &expirations, sizeof expirations) > 0)
            handler();
    }));
    return Timer(std::move(fd), std::move(watch));
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
        if (id == 0) {
            wake_.take();
            run_posted();
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

// Serving the entropy queue within its limits.
#include "devices/virtio/rng.hpp"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>

namespace masu::virtio {

namespace {

// Fills up to `size` bytes of the segments; how many it could.
std::uint64_t fill_random(std::span<const iovec> segments, std::uint64_t size) noexcept {
    std::uint64_t done = 0;
    for (const auto& segment : segments) {
        const auto part = std::min<std::uint64_t>(segment.iov_len, size - done);
        std::uint64_t filled = 0;
        while (filled < part) {
            // Straight into guest memory: nobody here ever looks at these bytes.
            const auto got = ::getrandom(static_cast<std::byte*>(segment.iov_base) + filled,
                                         static_cast<std::size_t>(part - filled), 0);
            if (got < 0 && errno != EINTR)
                return done + filled;
            if (got > 0)
                filled += static_cast<std::uint64_t>(got);
        }
        done += part;
        if (done == size)
            break;
    }
    return done;
}

}  // namespace

Rng::Rng(const RateLimiter::Limits& limits, const Clock& clock, Metrics& metrics)
    : clock_(clock),
      requests_(metrics.counter("entropy", "requests")),
      bytes_(metrics.counter("entropy", "bytes")),
      throttled_(metrics.counter("entropy", "throttled")),
      host_failures_(metrics.counter("entropy", "host_failures")),
      limiter_(limits, clock.now()) {}

Result<std::unique_ptr<Rng>> Rng::create(const RateLimiter::Limits& limits, EventLoop& loop,
                                         const Clock& clock, Metrics& metrics) {
    std::unique_ptr<Rng> rng(new Rng(limits, clock, metrics));
    rng->timer_ = TRY(loop.timer([raw = rng.get()] {
        const std::lock_guard lock(raw->mutex());
        raw->serve();
    }));
    return rng;
}

void Rng::update_limits(const RateLimiter::Limits& limits) {
    const std::lock_guard lock(mutex());
    limiter_.update(limits, clock_.now());
    if (waiting_)
        timer_->arm(0);
}

void Rng::read_config(std::uint64_t /*offset*/, std::span<std::byte> data) const noexcept {
    std::ranges::fill(data, std::byte{0});
}

void Rng::write_config(std::uint64_t /*offset*/, std::span<const std::byte> /*data*/) noexcept {}

void Rng::activate(Activation activation) {
    queue_ = std::move(activation.queues[0]);
    driver_ = activation.driver;
}

void Rng::notify(std::uint16_t index) {
    if (index == 0 && !waiting_)
        serve();
}

void Rng::reset() {
    timer_->disarm();
    waiting_.reset();
    queue_.reset();
    driver_ = nullptr;
}

Result<SavedDevice> Rng::save() {
    SavedDevice saved;
    if (waiting_) {
        timer_->disarm();
        queue_->put_back(std::move(*waiting_));
        waiting_.reset();
    }
    if (driver_ != nullptr)
        saved.queues.emplace_back(queue_ ? std::optional(queue_->position()) : std::nullopt);
    return saved;
}

// Also called by a timer that fired just before a reset, hence the first line.
void Rng::serve() {
    if (!queue_)
        return;
    queue_->disable_notifications();
    for (int turn = 0; turn < chains_per_turn; ++turn) {
        auto chain = next();
        if (!chain)
            break;
        if (!admit(*chain)) {
            waiting_ = std::move(chain);
            break;
        }
        fill(std::move(*chain));
        if (turn + 1 == chains_per_turn)
            timer_->arm(0);
    }
    if (queue_->needs_interrupt())
        driver_->interrupt_queue(0);
}

// The buffer that waited, else the next one of the queue; none ends the turn.
std::optional<Chain> Rng::next() {
    if (waiting_)
        return std::exchange(waiting_, std::nullopt);
    // The second look is for a buffer that came in before the driver saw our wish.
    for (int look = 0; look < 2; ++look) {
        auto popped = queue_->pop();
        if (!popped) {
            driver_->fault(to_string(popped.error()));
            return std::nullopt;
        }
        if (*popped)
            return std::move(*popped);
        if (!queue_->enable_notifications())
            break;
    }
    return std::nullopt;
}

bool Rng::admit(const Chain& chain) {
    const auto size = std::min(chain.writable_size(), max_request_bytes);
    const auto now = clock_.now();
    if (limiter_.try_take(size, 1, now))
        return true;
    throttled_.add();
    timer_->arm(limiter_.ready_in(size, 1, now));
    return false;
}

void Rng::fill(Chain&& chain) {
    const auto size = std::min(chain.writable_size(), max_request_bytes);
    const auto filled = fill_random(chain.writable(), size);
    requests_.add();
    bytes_.add(filled);
    if (filled < size)
        host_failures_.add();
    queue_->complete(std::move(chain), static_cast<std::uint32_t>(filled));
}

}  // namespace masu::virtio

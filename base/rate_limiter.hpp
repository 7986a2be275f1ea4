// Token buckets that hold a device to so many bytes and operations a second.
#pragma once

#include <cstdint>
#include <optional>

#include "base/clock.hpp"

namespace masu {

// `size` tokens come in evenly over each `refill_time`, so the rate is size / refill_time; the
// bucket holds at most `size` of them. `one_time_burst` comes on top, is spent first and is never
// refilled. size 0 or refill_time 0 means no limit.
struct TokenBucketLimit {
    std::uint64_t size = 0;
    Nanoseconds refill_time = 0;
    std::uint64_t one_time_burst = 0;
    bool operator==(const TokenBucketLimit&) const = default;
};

// One bucket. `now` must come from one monotonic clock; an earlier `now` counts as the latest seen.
// Not thread-safe. The arithmetic is exact: over any stretch of time no more is let through than
// burst + size + rate * time, plus the part by which one oversized request exceeded the bucket.
class TokenBucket {
  public:
    TokenBucket() = default;  // no limit
    TokenBucket(const TokenBucketLimit& limit, Nanoseconds now) noexcept;

    // 0 when `tokens` may be taken now, else how long until they may be, if nobody takes any. More
    // tokens than the bucket can hold may be taken once it is full.
    [[nodiscard]] Nanoseconds ready_in(std::uint64_t tokens, Nanoseconds now) noexcept;
    // Takes them if they may be taken. What the bucket did not hold becomes a debt.
    [[nodiscard]] bool try_take(std::uint64_t tokens, Nanoseconds now) noexcept;

    [[nodiscard]] bool limited() const noexcept { return limit_.size != 0; }

  private:
    void refill(Nanoseconds now) noexcept;

    TokenBucketLimit limit_;      // all zero when there is no limit
    std::int64_t level_ = 0;      // tokens; negative is debt
    std::uint64_t fraction_ = 0;  // part of a token earned, in 1 / refill_time
    Nanoseconds refilled_at_ = 0;
};

// A bucket of bytes and one of operations; a request needs room in both and takes from both, or
// from neither.
class RateLimiter {
  public:
    struct Limits {
        std::optional<TokenBucketLimit> bytes;
        std::optional<TokenBucketLimit> ops;
    };

    RateLimiter() = default;  // no limit
    RateLimiter(const Limits& limits, Nanoseconds now) noexcept { update(limits, now); }

    // Replaces the buckets named, full and with their burst; an absent one stays as it is.
    void update(const Limits& limits, Nanoseconds now) noexcept;

    [[nodiscard]] bool try_take(std::uint64_t bytes, std::uint64_t ops, Nanoseconds now) noexcept;
    [[nodiscard]] Nanoseconds ready_in(std::uint64_t bytes, std::uint64_t ops,
                                       Nanoseconds now) noexcept;

    [[nodiscard]] bool limited() const noexcept { return bytes_.limited() || ops_.limited(); }

  private:
    TokenBucket bytes_;
    TokenBucket ops_;
};

}  // namespace masu

// Token bucket arithmetic.
#include "base/rate_limiter.hpp"

#include <algorithm>
#include <limits>

namespace masu {
namespace {

__extension__ using Wide = unsigned __int128;  // products of two 64-bit values

// Leaves room in a signed level for a full bucket and for any debt.
constexpr std::uint64_t max_tokens = std::uint64_t{1} << 61;

}  // namespace

TokenBucket::TokenBucket(const TokenBucketLimit& limit, Nanoseconds now) noexcept
    : refilled_at_(now) {
    if (limit.size == 0 || limit.refill_time == 0)
        return;
    limit_ = limit;
    limit_.size = std::min(limit.size, max_tokens);
    level_ = static_cast<std::int64_t>(limit_.size);
}

void TokenBucket::refill(Nanoseconds now) noexcept {
    if (now <= refilled_at_)
        return;
    const Wide earned = Wide{now - refilled_at_} * limit_.size + fraction_;
    refilled_at_ = now;
    const Wide tokens = earned / limit_.refill_time;
    const auto room = static_cast<std::uint64_t>(static_cast<std::int64_t>(limit_.size) - level_);
    if (tokens >= room) {
        level_ = static_cast<std::int64_t>(limit_.size);
        fraction_ = 0;
    } else {
        level_ += static_cast<std::int64_t>(tokens);
        fraction_ = static_cast<std::uint64_t>(earned % limit_.refill_time);
    }
}

Nanoseconds TokenBucket::ready_in(std::uint64_t tokens, Nanoseconds now) noexcept {
    if (!limited() || tokens <= limit_.one_time_burst)
        return 0;
    refill(now);
    const auto needed =
        static_cast<std::int64_t>(std::min(tokens - limit_.one_time_burst, limit_.size));
    if (needed <= level_)
        return 0;
    const Wide missing = Wide{static_cast<std::uint64_t>(needed - level_)} * limit_.refill_time;
    const Wide wait = (missing - fraction_ + limit_.size - 1) / limit_.size;
    return static_cast<Nanoseconds>(std::min(wait, Wide{std::numeric_limits<Nanoseconds>::max()}));
}

bool TokenBucket::try_take(std::uint64_t tokens, Nanoseconds now) noexcept {
    if (!limited())
        return true;
    if (ready_in(tokens, now) != 0)
        return false;
    const std::uint64_t from_burst = std::min(tokens, limit_.one_time_burst);
    limit_.one_time_burst -= from_burst;
    level_ -= static_cast<std::int64_t>(std::min(tokens - from_burst, max_tokens));
    return true;
}

void RateLimiter::update(const Limits& limits, Nanoseconds now) noexcept {
    if (limits.bytes)
        bytes_ = TokenBucket(*limits.bytes, now);
    if (limits.ops)
        ops_ = TokenBucket(*limits.ops, now);
}

bool RateLimiter::try_take(std::uint64_t bytes, std::uint64_t ops, Nanoseconds now) noexcept {
    if (ready_in(bytes, ops, now) != 0)
        return false;
    // Both are ready, so both succeed.
    return bytes_.try_take(bytes, now) && ops_.try_take(ops, now);
}

Nanoseconds RateLimiter::ready_in(std::uint64_t bytes, std::uint64_t ops,
                                  Nanoseconds now) noexcept {
    return std::max(bytes_.ready_in(bytes, now), ops_.ready_in(ops, now));
}

}  // namespace masu

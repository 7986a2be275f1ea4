// Token buckets: rate, burst, oversized requests, and changes while running. Time is ours.
#include "base/rate_limiter.hpp"

#include <doctest/doctest.h>

#include <limits>

using namespace masu;

namespace {
constexpr Nanoseconds second = 1'000'000'000;
}

TEST_CASE("a bucket starts full and refills at size over refill time") {
    TokenBucket bucket({.size = 100, .refill_time = second}, 7);
    CHECK(bucket.try_take(100, 7));
    CHECK_FALSE(bucket.try_take(1, 7));
    CHECK(bucket.ready_in(1, 7) == second / 100);
    CHECK_FALSE(bucket.try_take(1, 7 + second / 100 - 1));
    CHECK(bucket.try_take(1, 7 + second / 100));
    CHECK(bucket.ready_in(100, 7 + second / 100) == second);
    CHECK_FALSE(bucket.try_take(101, 7 + second));  // not full: one token went meanwhile
    CHECK(bucket.try_take(100, 7 + 100 * second));  // never more than the bucket holds
    CHECK_FALSE(bucket.try_take(1, 7 + 100 * second));
}

TEST_CASE("asking often earns exactly what asking seldom earns") {
    TokenBucket bucket({.size = 1000, .refill_time = 3 * second}, 0);
    REQUIRE(bucket.try_take(1000, 0));
    std::uint64_t taken = 0;
    for (Nanoseconds now = 0; now <= 3 * second; now += 999'983)
        taken += bucket.try_take(1, now) ? 1U : 0U;
    taken += bucket.try_take(1, 3 * second) ? 1U : 0U;
    CHECK(taken == 1000);
}

TEST_CASE("the burst is spent first and never comes back") {
    TokenBucket bucket({.size = 10, .refill_time = second, .one_time_burst = 25}, 0);
    CHECK(bucket.try_take(20, 0));
    CHECK(bucket.try_take(15, 0));  // 5 of the burst and the 10 of the bucket
    CHECK_FALSE(bucket.try_take(1, 0));
    CHECK(bucket.try_take(10, 50 * second));
    CHECK_FALSE(bucket.try_take(1, 50 * second));
}

TEST_CASE("a refused request takes nothing") {
    TokenBucket bucket({.size = 10, .refill_time = second, .one_time_burst = 5}, 0);
    REQUIRE(bucket.try_take(10, 0));  // burst gone, 5 left
    CHECK_FALSE(bucket.try_take(6, 0));
    CHECK(bucket.try_take(5, 0));
}

TEST_CASE("a request larger than the bucket passes when it is full and is paid for afterwards") {
    TokenBucket bucket({.size = 10, .refill_time = second}, 0);
    REQUIRE(bucket.try_take(1, 0));
    CHECK_FALSE(bucket.try_take(35, 0));
    CHECK(bucket.ready_in(35, 0) == second / 10);
    CHECK(bucket.try_take(35, second / 10));
    CHECK(bucket.ready_in(1, second / 10) == second / 10 * 26);
    CHECK_FALSE(bucket.try_take(1, second / 10 * 26));
    CHECK(bucket.try_take(1, second / 10 * 27));
}

TEST_CASE("no limit, and limits beyond all measure") {
    TokenBucket none;
    CHECK_FALSE(none.limited());
    CHECK(none.try_take(std::numeric_limits<std::uint64_t>::max(), 0));
    CHECK(none.ready_in(1, 0) == 0);
    CHECK_FALSE(TokenBucket({.size = 0, .refill_time = second}, 0).limited());
    CHECK_FALSE(TokenBucket({.size = 5, .refill_time = 0}, 0).limited());

    constexpr auto most = std::numeric_limits<std::uint64_t>::max();
    TokenBucket huge({.size = most, .refill_time = most, .one_time_burst = most}, 0);
    CHECK(huge.try_take(most, 0));
    CHECK(huge.try_take(most, 0));
    CHECK_FALSE(huge.try_take(1, 0));
    CHECK(huge.ready_in(most, most / 2) > 0);
    CHECK(huge.try_take(0, 0));
}

TEST_CASE("time going backwards neither earns nor costs") {
    TokenBucket bucket({.size = 10, .refill_time = second}, second);
    REQUIRE(bucket.try_take(10, second));
    CHECK_FALSE(bucket.try_take(1, 0));
    CHECK(bucket.try_take(1, second + second / 10));
}

TEST_CASE("a limiter takes from both buckets or from neither") {
    RateLimiter limiter(
        {.bytes = TokenBucketLimit{4096, second, 0}, .ops = TokenBucketLimit{2, second, 0}}, 0);
    CHECK(limiter.limited());
    CHECK(limiter.try_take(1024, 1, 0));
    CHECK_FALSE(limiter.try_take(4096, 1, 0));
    CHECK(limiter.try_take(1024, 1, 0));  // the refusal above cost no operation
    CHECK_FALSE(limiter.try_take(0, 1, 0));
    CHECK(limiter.ready_in(0, 1, 0) == second / 2);
    CHECK(limiter.ready_in(4096, 1, 0) == second / 2);
    CHECK(limiter.ready_in(4096, 0, 0) == second / 2);
}

TEST_CASE("limits change while running; what is not named stays") {
    RateLimiter limiter(
        {.bytes = TokenBucketLimit{100, second, 0}, .ops = TokenBucketLimit{1, second, 0}}, 0);
    REQUIRE(limiter.try_take(100, 1, 0));
    limiter.update({.bytes = TokenBucketLimit{}, .ops = std::nullopt}, 0);
    CHECK_FALSE(limiter.try_take(1, 1, 0));
    CHECK(limiter.try_take(1'000'000, 1, second));
    limiter.update({.bytes = std::nullopt, .ops = TokenBucketLimit{0, 0, 0}}, second);
    CHECK_FALSE(limiter.limited());
    CHECK(limiter.try_take(1'000'000, 50, second));
}

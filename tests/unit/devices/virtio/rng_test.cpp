// virtio-rng: what it fills, and how it keeps to its limits.
#include "devices/virtio/rng.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "base/bytes.hpp"
#include "tests/unit/devices/virtio/fake_driver.hpp"
#include "tests/unit/devices/virtio/test_driver.hpp"

namespace masu::virtio {
namespace {

using fake::TestClock;
using fake::TestDriver;

// The device with its driver, and the transport's part played by hand.
struct Rig {
    explicit Rig(const RateLimiter::Limits& limits = {})
        : rng(std::move(*Rng::create(limits, *loop, clock, metrics))) {
        activate();
    }
    void activate() {
        std::vector<std::optional<Queue>> queues;
        queues.emplace_back(ring.make_queue());
        const std::lock_guard lock(rng->mutex());
        rng->activate({.memory = &memory.guest(),
                       .features = ring.features(),
                       .queues = std::move(queues),
                       .driver = &driver});
    }
    void notify() {
        const std::lock_guard lock(rng->mutex());
        rng->notify(0);
    }
    void reset() {
        const std::lock_guard lock(rng->mutex());
        rng->reset();
    }
    std::uint64_t counter(const char* name) { return metrics.counter("entropy", name).value(); }
    int completions() {
        int count = 0;
        while (ring.take_used())
            ++count;
        return count;
    }

    fake::Memory memory;
    fake::Ring ring{memory, 256, feature_version_1 | feature_indirect_desc};
    TestClock clock;
    TestDriver driver;
    Metrics metrics;
    std::unique_ptr<EventLoop> loop = std::move(*EventLoop::create());
    std::unique_ptr<Rng> rng;
};

constexpr Nanoseconds millisecond = 1'000'000;

RateLimiter::Limits ops_limit(std::uint64_t ops, Nanoseconds time) {
    return {.bytes = std::nullopt, .ops = TokenBucketLimit{.size = ops, .refill_time = time}};
}

}  // namespace

TEST_CASE_FIXTURE(Rig, "buffers are filled to the last byte, and no two alike") {
    const auto first = ring.chain().append_writable(61).append_writable(3).build();
    const auto second = ring.chain().append_writable(64).indirect().build();
    notify();
    for (const auto* built : {&first, &second}) {
        const auto used = ring.take_used();
        REQUIRE(used);
        CHECK(used->id == built->head);
        CHECK(used->length == 64);
        const auto bytes = ring.written(*built);
        // 64 random bytes with more than 16 zeros among them do not happen.
        CHECK(std::ranges::count(bytes, std::byte{0}) < 16);
    }
    CHECK(ring.written(first) != ring.written(second));
    CHECK(driver.interrupts.size() == 1);
    CHECK(counter("requests") == 2);
    CHECK(counter("bytes") == 128);
    CHECK(driver.faults.size() == 0);
}

TEST_CASE_FIXTURE(Rig, "one buffer gets 64 KiB at most") {
    const auto built = ring.chain().append_writable(60 * 1024).append_writable(60 * 1024).build();
    notify();
    CHECK(ring.take_used()->length == Rng::max_request_bytes);
    const auto bytes = ring.written(built);
    CHECK(std::ranges::all_of(std::span(bytes).subspan(Rng::max_request_bytes),
                              [](auto byte) { return byte == std::byte{0}; }));
}

TEST_CASE_FIXTURE(Rig, "a buffer that cannot be written comes back empty") {
    ring.chain().append_readable("not for you").build();
    ring.chain().append_raw({0}, 0, fake::desc_write).build();
    notify();
    CHECK(ring.take_used()->length == 0);
    CHECK(ring.take_used()->length == 0);
    CHECK(driver.faults.size() == 0);
}

TEST_CASE_FIXTURE(Rig, "a broken ring is reported, once") {
    ring.set_avail_index(300);
    notify();
    CHECK(driver.faults.size() == 1);
    loop->run_once(0);
    CHECK(driver.faults.size() == 1);
    reset();
}

TEST_CASE_FIXTURE(Rig, "a full queue is served over several turns of the loop") {
    for (int i = 0; i < 256; ++i)
        ring.chain().append_writable(1).build();
    notify();
    int done = completions();
    CHECK(done < 256);
    for (int i = 0; i < 256 && done < 256; ++i) {
        loop->run_once(1000);
        done += completions();
    }
    CHECK(done == 256);
    loop->run_once(1000);  // finds nothing more, and wants notifications again
    CHECK(ring.used_flags() == 0);
}

TEST_CASE_FIXTURE(Rig, "a reset between two turns ends it") {
    for (int i = 0; i < 64; ++i)
        ring.chain().append_writable(1).build();
    notify();
    reset();
    const auto done = completions();
    CHECK(done < 64);
    loop->run_once(20);
    CHECK(completions() == 0);
}

TEST_CASE("operations over the limit wait for the timer") {
    Rig rig(ops_limit(2, 2 * millisecond));
    for (int i = 0; i < 3; ++i)
        rig.ring.chain().append_writable(8).build();
    rig.notify();
    CHECK(rig.completions() == 2);
    CHECK(rig.counter("throttled") == 1);

    rig.notify();  // of no avail
    CHECK(rig.completions() == 0);
    rig.loop->run_once(1000);  // the timer is early by the test's clock, which stands still
    CHECK(rig.completions() == 0);

    rig.clock.time += millisecond;
    rig.loop->run_once(1000);
    CHECK(rig.completions() == 1);
    CHECK(rig.driver.interrupts.size() == 2);
}

TEST_CASE("bytes are limited too, even by a bucket smaller than a request") {
    Rig rig(
        {.bytes = TokenBucketLimit{.size = 100, .refill_time = millisecond}, .ops = std::nullopt});
    rig.ring.chain().append_writable(1000).build();
    rig.ring.chain().append_writable(1).build();
    rig.notify();
    CHECK(rig.completions() == 1);
    rig.clock.time += 8 * millisecond;  // 900 bytes of debt are not paid yet
    rig.loop->run_once(1000);
    CHECK(rig.completions() == 0);
    rig.clock.time += 2 * millisecond;
    rig.loop->run_once(1000);
    CHECK(rig.completions() == 1);
}

TEST_CASE("a reset while a buffer waits forgets it") {
    Rig rig(ops_limit(1, 5 * millisecond));
    for (int i = 0; i < 3; ++i)
        rig.ring.chain().append_writable(8).build();
    rig.notify();
    CHECK(rig.completions() == 1);
    rig.reset();
    rig.clock.time += 1000 * millisecond;
    rig.loop->run_once(50);
    CHECK(rig.completions() == 0);

    // The next driver, with its own ring, finds the device at work.
    rig.ring = fake::Ring(rig.memory, 256, feature_version_1);
    rig.activate();
    rig.ring.chain().append_writable(8).build();
    rig.notify();
    CHECK(rig.completions() == 1);
}

TEST_CASE("new limits let a waiting buffer go") {
    Rig rig(ops_limit(1, 3600 * 1000 * millisecond));
    rig.ring.chain().append_writable(8).build();
    rig.ring.chain().append_writable(8).build();
    rig.notify();
    CHECK(rig.completions() == 1);
    rig.rng->update_limits({.bytes = std::nullopt, .ops = TokenBucketLimit{}});
    rig.loop->run_once(1000);
    CHECK(rig.completions() == 1);
}

}  // namespace masu::virtio

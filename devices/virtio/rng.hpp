// virtio-rng: the host's random bytes for the guest (virtio 1.2, 5.4).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "base/clock.hpp"
#include "base/event_loop.hpp"
#include "base/metrics.hpp"
#include "base/rate_limiter.hpp"
#include "base/result.hpp"
#include "devices/virtio/device.hpp"

namespace masu::virtio {

// Fills each buffer with bytes of getrandom(2), at most max_request_bytes of them. When the limits
// are used up, the buffer at hand waits for a timer and the driver's queue fills up behind it.
// Counters (group "entropy"): requests, bytes, throttled (waits begun), host_failures.
class Rng final : public Device {
  public:
    static constexpr std::uint64_t max_request_bytes = 64 * 1024;

    // Everything is borrowed and outlives the device. Fails when the host refuses a timer.
    [[nodiscard]] static Result<std::unique_ptr<Rng>> create(const RateLimiter::Limits& limits,
                                                             EventLoop& loop, const Clock& clock,
                                                             Metrics& metrics);

    // Replaces the limits (see RateLimiter::update). Takes mutex() itself; any thread.
    void update_limits(const RateLimiter::Limits& limits);

    [[nodiscard]] DeviceId id() const noexcept override { return DeviceId::Entropy; }
    [[nodiscard]] std::uint64_t features() const noexcept override { return 0; }
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override {
        return sizes;
    }
    void read_config(std::uint64_t offset, std::span<std::byte> data) const noexcept override;
    void write_config(std::uint64_t offset, std::span<const std::byte> data) noexcept override;
    void activate(Activation activation) override;
    void notify(std::uint16_t index) override;
    void reset() override;
    [[nodiscard]] Result<SavedDevice> save() override;

  private:
    static constexpr std::array<std::uint16_t, 1> sizes{256};
    // After so many buffers other descriptors of the loop get their turn.
    static constexpr int chains_per_turn = 16;

    Rng(const RateLimiter::Limits& limits, const Clock& clock, Metrics& metrics);
    void serve();
    [[nodiscard]] std::optional<Chain> next();
    [[nodiscard]] bool admit(const Chain& chain);
    void fill(Chain&& chain);

    const Clock& clock_;
    Counter& requests_;
    Counter& bytes_;
    Counter& throttled_;
    Counter& host_failures_;
    RateLimiter limiter_;
    std::optional<Queue> queue_;
    std::optional<Chain> waiting_;  // popped, but over the limit
    Driver* driver_ = nullptr;
    // Set once by create(). Armed and disarmed under mutex() from any thread.
    std::optional<EventLoop::Timer> timer_;
};

}  // namespace masu::virtio

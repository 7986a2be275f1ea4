// The gate every frame between guest and backend goes through.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "base/clock.hpp"
#include "devices/net/firewall/firewall.hpp"

namespace masu::net {

// Called on the device's thread, for each frame. Frame::bytes is a private copy of the whole frame
// or of at least max_header_bytes of it.
class FrameFilter {
  public:
    virtual ~FrameFilter() = default;
    [[nodiscard]] virtual Action judge(Direction direction, const Frame& frame,
                                       Nanoseconds now) noexcept = 0;
    // The same in two steps, for a batch (see Firewall::prepare).
    static constexpr std::size_t max_burst = Firewall::max_burst;
    virtual void prepare(std::size_t /*place*/, Direction /*direction*/,
                         const Frame& /*frame*/) noexcept {}
    [[nodiscard]] virtual Action judge_prepared(std::size_t /*place*/, Direction direction,
                                                const Frame& frame, Nanoseconds now) noexcept {
        return judge(direction, frame, now);
    }
    // After Action::Answer: the frame for the guest, until the next judge().
    [[nodiscard]] virtual std::span<const std::byte> answer() const noexcept { return {}; }
};

// An interface's security groups. One whose creator uses none (a stock client of the control
// socket) passes everything; once it was given some, no frame passes that the firewall refuses.
class SecurityFilter final : public FrameFilter {
  public:
    void set(std::unique_ptr<Firewall> firewall) noexcept { firewall_ = std::move(firewall); }
    // Null before set().
    [[nodiscard]] Firewall* firewall() noexcept { return firewall_.get(); }

    [[nodiscard]] Action judge(Direction direction, const Frame& frame,
                               Nanoseconds now) noexcept override {
        return firewall_ ? firewall_->judge(direction, frame, now).action : Action::Pass;
    }
    void prepare(std::size_t place, Direction direction, const Frame& frame) noexcept override {
        if (firewall_)
            firewall_->prepare(place, direction, frame);
    }
    [[nodiscard]] Action judge_prepared(std::size_t place, Direction direction, const Frame& frame,
                                        Nanoseconds now) noexcept override {
        return firewall_ ? firewall_->judge_prepared(place, direction, frame, now).action
                         : Action::Pass;
    }
    [[nodiscard]] std::span<const std::byte> answer() const noexcept override {
        return firewall_ ? firewall_->answer() : std::span<const std::byte>();
    }

  private:
    std::unique_ptr<Firewall> firewall_;
};

}  // namespace masu::net

// What the monitor itself answers on an interface: frames that never reach the backend.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "base/clock.hpp"

namespace masu::net {

// Called on the device's thread. Frames carry complete headers; a checksum the driver left to the
// device may be incomplete.
class GuestServices {
  public:
    virtual ~GuestServices() = default;

    // Whether a frame of the guest is meant for the services. Looks at the headers only.
    [[nodiscard]] virtual bool wants(std::span<const std::byte> headers) const noexcept = 0;
    // Whether a frame from outside claims to come from the services, which it must not.
    [[nodiscard]] virtual bool impersonates(std::span<const std::byte> headers) const noexcept = 0;
    // A whole frame that they want. Answers wait for take_frame().
    virtual void receive(std::span<const std::byte> frame, Nanoseconds now) = 0;
    // The next frame for the guest; empty when there is none. Valid until the next call.
    [[nodiscard]] virtual std::span<const std::byte> take_frame(Nanoseconds now) = 0;
    // When take_frame() may have something without a receive() before (a retransmission).
    [[nodiscard]] virtual std::optional<Nanoseconds> next_deadline() const noexcept = 0;
    // The guest's driver was reset: connections and queued answers are gone.
    virtual void reset() noexcept = 0;
};

}  // namespace masu::net

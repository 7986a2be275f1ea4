// What a device has around it when a test plays the transport's part: a driver that notes what it
// is told, and a clock that is set by hand.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.hpp"
#include "devices/virtio/device.hpp"

namespace masu::virtio::fake {

class TestClock final : public Clock {
  public:
    [[nodiscard]] Nanoseconds now() const noexcept override { return time; }
    [[nodiscard]] std::uint64_t wall() const noexcept override { return time; }
    Nanoseconds time = 1'000'000'000;
};

class TestDriver final : public Driver {
  public:
    void interrupt_queue(std::uint16_t queue) override { interrupts.push_back(queue); }
    void interrupt_config() override { ++config_changes; }
    void fault(std::string_view why) override { faults.emplace_back(why); }
    std::vector<std::uint16_t> interrupts;
    int config_changes = 0;
    std::vector<std::string> faults;
};

}  // namespace masu::virtio::fake

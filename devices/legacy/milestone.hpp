// The guest says "user space runs" by writing 123, to a port or to Firecracker's MMIO place.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "devices/bus.hpp"

namespace masu::legacy {

// Put one object on both buses: the callback runs once, on the vCPU thread that wrote first.
class MilestoneDevice final : public BusDevice {
  public:
    static constexpr std::uint64_t port_count = 1;
    static constexpr std::uint64_t mmio_size = 0x1000;
    static constexpr std::uint8_t init_reached = 123;

    explicit MilestoneDevice(std::function<void()> reached) : reached_(std::move(reached)) {}

    void read(std::uint64_t, std::span<std::byte>) override {}
    void write(std::uint64_t offset, std::span<const std::byte> data) override;

  private:
    std::function<void()> reached_;
    std::atomic<bool> done_{false};
};

}  // namespace masu::legacy

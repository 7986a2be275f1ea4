// The guest says how far it has come: user space by writing 123, to a port or to Firecracker's MMIO
// place, Masu's firmware by numbers of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "devices/bus.hpp"

namespace masu::legacy {

// Put one object on both buses. Callbacks run on the vCPU thread that writes; each value counts
// once, so that a guest cannot make noise.
class MilestoneDevice final : public BusDevice {
  public:
    static constexpr std::uint64_t port_count = 1;
    static constexpr std::uint64_t mmio_size = 0x1000;
    static constexpr std::uint8_t init_reached = 123;
    static constexpr std::uint8_t first_firmware_event = 0xf0;  // and up

    // `firmware_event` may be empty; it is given the value written.
    explicit MilestoneDevice(std::function<void()> reached,
                             std::function<void(std::uint8_t)> firmware_event = {})
        : reached_(std::move(reached)), firmware_event_(std::move(firmware_event)) {}

    void read(std::uint64_t, std::span<std::byte>) override {}
    void write(std::uint64_t offset, std::span<const std::byte> data) override;

  private:
    std::function<void()> reached_;
    std::function<void(std::uint8_t)> firmware_event_;
    std::atomic<bool> done_{false};
    std::atomic<std::uint32_t> seen_{0};  // firmware events, a bit each
};

}  // namespace masu::legacy

// pvpanic: the guest's kernel says that it panicked.
#pragma once

#include <cstdint>
#include <functional>

#include "devices/legacy/byte_device.hpp"

namespace masu::legacy {

// QEMU docs/specs/pvpanic: one port; reads give the events the host understands, writes report.
class Pvpanic final : public ByteDevice {
  public:
    static constexpr std::uint64_t port_count = 1;
    enum class Event : std::uint8_t {
        Panicked = 1 << 0,     // the kernel panicked
        CrashLoaded = 1 << 1,  // it panicked and will run its crash kernel
    };

    // Called on the vCPU thread, once per event written; unknown bits are ignored.
    explicit Pvpanic(std::function<void(Event)> report) : report_(std::move(report)) {}

  private:
    std::uint8_t read_register(std::uint64_t offset) override;
    void write_register(std::uint64_t offset, std::uint8_t value) override;
    std::function<void(Event)> report_;
};

}  // namespace masu::legacy

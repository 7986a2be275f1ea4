// A device of 8-bit registers: wider accesses reach consecutive registers, as on the ISA bus.
#pragma once

#include <cstdint>
#include <span>

#include "devices/bus.hpp"

namespace masu::legacy {

// Thread rules are those of BusDevice; a wide access is not atomic.
class ByteDevice : public BusDevice {
  public:
    void read(std::uint64_t offset, std::span<std::byte> data) final {
        for (auto& byte : data)
            byte = std::byte{read_register(offset++)};
    }
    void write(std::uint64_t offset, std::span<const std::byte> data) final {
        for (const auto byte : data)
            write_register(offset++, std::to_integer<std::uint8_t>(byte));
    }

  private:
    [[nodiscard]] virtual std::uint8_t read_register(std::uint64_t offset) = 0;
    virtual void write_register(std::uint64_t offset, std::uint8_t value) = 0;
};

}  // namespace masu::legacy

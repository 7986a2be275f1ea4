// An address space of devices: port I/O or MMIO, looked up by the vCPU threads at each exit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <shared_mutex>
#include <span>

#include "base/result.hpp"

namespace masu {

// Something that answers at a range of a bus. Called on vCPU threads, several at once: each device
// has its own lock. `offset` is relative to the start of the range; `data` is 1 to 8 bytes and may
// have any size and alignment the guest chose. Reads the device does not know leave all ones.
class BusDevice {
  public:
    virtual ~BusDevice() = default;
    virtual void read(std::uint64_t offset, std::span<std::byte> data) = 0;
    virtual void write(std::uint64_t offset, std::span<const std::byte> data) = 0;
};

// Ranges never overlap. Thread-safe. Devices are borrowed and must outlive their range.
// Lock order: a device's lock may be held when insert() or remove() is called, and read() and
// write() call the device with no bus lock held.
class Bus {
  public:
    // `name` is for the error message ("com1").
    [[nodiscard]] Result<> insert(std::uint64_t base, std::uint64_t size, BusDevice& device,
                                  const char* name);
    void remove(std::uint64_t base);

    // False when no device covers the whole access; a read has then filled `data` with ones.
    bool read(std::uint64_t address, std::span<std::byte> data) const;
    bool write(std::uint64_t address, std::span<const std::byte> data) const;

  private:
    struct Range {
        std::uint64_t size;
        BusDevice* device;
        const char* name;
    };
    struct Hit {
        BusDevice* device;
        std::uint64_t offset;
    };
    [[nodiscard]] Hit find(std::uint64_t address, std::size_t size) const;

    mutable std::shared_mutex mutex_;
    std::map<std::uint64_t, Range> ranges_;
};

}  // namespace masu

// The layout of transports in a snapshot: plain data, pinned here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/plain_data.hpp"
#include "devices/pci/config_space.hpp"
#include "devices/pci/msix.hpp"
#include "devices/virtio/queue.hpp"

namespace masu::virtio {

inline constexpr std::size_t max_saved_queues = 4096;
inline constexpr std::size_t max_saved_device = 1 << 20;  // bytes of a device's own state

// One queue: what the driver wrote, and where the device stands in it.
struct SavedQueue {
    std::uint64_t desc_table = 0;
    std::uint64_t avail = 0;
    std::uint64_t used = 0;
    std::uint16_t size = 0;
    std::uint8_t enabled = 0;
    std::uint8_t running = 0;  // the device has it, and `position` counts
    std::uint32_t reserved = 0;
    QueuePosition position;
};
static_assert(PlainData<SavedQueue> && sizeof(SavedQueue) == 40);
static_assert(offsetof(SavedQueue, size) == 24 && offsetof(SavedQueue, position) == 32);

// The registers of TransportCore.
struct SavedRegisters {
    std::uint64_t accepted = 0;  // features
    std::uint32_t device_window = 0;
    std::uint32_t driver_window = 0;
    std::uint32_t config_generation = 0;
    std::uint32_t selected_queue = 0;
    std::uint8_t status = 0;
    std::uint8_t active = 0;
    std::uint8_t accepted_unknown = 0;
    std::array<std::uint8_t, 5> reserved{};
};
static_assert(PlainData<SavedRegisters> && sizeof(SavedRegisters) == 32);
static_assert(offsetof(SavedRegisters, status) == 24);

struct CoreState {
    SavedRegisters registers;
    std::vector<SavedQueue> queues;
    std::vector<std::byte> device;  // SavedDevice::own
};

// Everything of one function on the PCI bus.
struct SavedPciFunction {
    CoreState core;
    pci::ConfigState config;
    pci::MsixState msix;
    std::uint16_t config_vector = 0;
    std::vector<std::uint16_t> queue_vectors;
    std::uint8_t isr = 0;
    std::uint8_t number = 0;  // device number on bus 0
};

// Everything of one virtio-mmio window.
struct SavedMmioWindow {
    CoreState core;
    std::uint32_t interrupt_status = 0;
};

void put(PlainWriter& writer, const SavedPciFunction& state);
void put(PlainWriter& writer, const SavedMmioWindow& state);
// Complaints go to the reader; what is returned is then of no use.
[[nodiscard]] SavedPciFunction get_pci_function(PlainReader& reader);
[[nodiscard]] SavedMmioWindow get_mmio_window(PlainReader& reader);

}  // namespace masu::virtio

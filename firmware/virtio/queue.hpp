// One split virtqueue, polled (virtio 1.2, 2.7).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "firmware/virtio/pci.hpp"

namespace masu::firmware::virtio {

struct Buffer {
    std::uint64_t address;
    std::uint32_t size;
    bool device_writes;
};

// Chains of up to 4 buffers, each in a fixed place of the descriptor table: slot s owns the
// descriptors 4s to 4s+3, so that there is nothing to keep track of.
class Queue {
  public:
    static constexpr std::uint16_t size = 128;
    static constexpr std::uint16_t chain_length = 4;
    static constexpr std::uint16_t slots = size / chain_length;
    // What its rings need, page-aligned.
    static constexpr std::size_t memory_size = 8192;

    // Queue `index` of the device, on zeroed memory. False when the device has no such queue, or a
    // smaller one.
    [[nodiscard]] bool set_up(const Device& device, std::uint16_t index,
                              std::byte* memory) noexcept;
    // The slot must be free. The device sees it at the next kick().
    void post(std::uint16_t slot, std::span<const Buffer> chain) noexcept;
    void kick() noexcept;
    // A slot that the device has given back, and the bytes it wrote; false: none yet.
    [[nodiscard]] bool take(std::uint16_t& slot, std::uint32_t& written) noexcept;

  private:
    struct Descriptor {
        std::uint64_t address;
        std::uint32_t length;
        std::uint16_t flags;
        std::uint16_t next;
    };
    std::byte* memory_ = nullptr;
    std::uint64_t notify_ = 0;
    std::uint16_t index_ = 0;
    std::uint16_t avail_ = 0;
    std::uint16_t used_ = 0;
};

}  // namespace masu::firmware::virtio

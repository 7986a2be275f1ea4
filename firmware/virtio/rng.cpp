#include "firmware/virtio/rng.hpp"

#include <algorithm>
#include <cstring>

#include "firmware/platform/clock.hpp"
#include "firmware/platform/cpu.hpp"
#include "firmware/services/memory.hpp"
#include "firmware/virtio/queue.hpp"

namespace masu::firmware::virtio {
namespace {

constexpr std::size_t buffer_size = 4096;
constexpr std::uint64_t patience = 5 * clock::per_second;
constinit Device device = {};
constinit Queue queue = {};
constinit std::byte* buffer = nullptr;

}  // namespace

bool start_rng() noexcept {
    std::uint64_t got = 0;
    if (!find_device(DeviceType::Entropy, -1, device) || !begin(device, 0, got))
        return false;
    auto* memory = allocate_data_pages(efi::pages_for(Queue::memory_size) + 1);
    if (memory == nullptr)
        return false;
    std::memset(memory, 0, Queue::memory_size);
    if (!queue.set_up(device, 0, memory))
        return false;
    driver_ok(device);
    buffer = memory + Queue::memory_size;
    return true;
}

bool random_bytes(std::span<std::byte> to) noexcept {
    while (!to.empty()) {
        if (buffer == nullptr)
            return false;
        const auto wanted = std::min(to.size(), buffer_size);
        const Buffer chain[] = {{reinterpret_cast<std::uint64_t>(buffer),
                                 static_cast<std::uint32_t>(wanted), true}};
        queue.post(0, chain);
        queue.kick();
        const auto deadline = clock::now() + patience;
        std::uint16_t slot = 0;
        std::uint32_t written = 0;
        while (!queue.take(slot, written)) {
            if (clock::now() > deadline) {
                stop_rng();
                return false;
            }
            cpu::pause();
        }
        const auto got = std::min<std::size_t>(written, wanted);
        if (got == 0)
            return false;
        std::memcpy(to.data(), buffer, got);
        std::memset(buffer, 0, got);
        to = to.subspan(got);
    }
    return true;
}

void stop_rng() noexcept {
    if (buffer != nullptr)
        reset(device);
    buffer = nullptr;
}

}  // namespace masu::firmware::virtio

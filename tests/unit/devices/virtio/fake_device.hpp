// A virtio device that records what its transport does to it, for transport tests.
#pragma once

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "devices/virtio/device.hpp"

namespace masu::virtio::fake {

// Two queues, of 8 and 4 entries; one feature of its own; 16 bytes of configuration. Unless told
// otherwise it completes every buffer at once with length 0.
class RecordingDevice final : public Device {
  public:
    static constexpr std::uint64_t own_feature = 1ULL << 5;
    static constexpr std::array<std::uint16_t, 2> sizes{8, 4};

    [[nodiscard]] DeviceId id() const noexcept override { return DeviceId::Block; }
    [[nodiscard]] std::uint64_t features() const noexcept override { return own_feature; }
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override {
        return sizes;
    }
    void read_config(std::uint64_t offset, std::span<std::byte> data) const noexcept override {
        std::ranges::fill(data, std::byte{0});
        for (std::size_t i = 0; i < data.size() && offset + i < config.size(); ++i)
            data[i] = config[offset + i];
    }
    void write_config(std::uint64_t offset, std::span<const std::byte> data) noexcept override {
        for (std::size_t i = 0; i < data.size() && offset + i < config.size(); ++i)
            config[offset + i] = data[i];
    }
    void activate(Activation activation) override {
        broken_calls += active ? 1 : 0;
        ++activations;
        active = true;
        features_seen = activation.features;
        driver = activation.driver;
        queues = std::move(activation.queues);
    }
    void notify(std::uint16_t index) override {
        broken_calls += active && index < queues.size() && queues[index] ? 0 : 1;
        notified.push_back(index);
        if (on_notify)
            on_notify(index);
        else if (active)
            complete_all(index);
    }
    void reset() override {
        broken_calls += active ? 0 : 1;
        if (on_reset)
            on_reset();
        ++resets;
        active = false;
        queues.clear();
        driver = nullptr;
    }

    void complete_all(std::uint16_t index) {
        auto& queue = *queues[index];
        for (;;) {
            auto popped = queue.pop();
            if (!popped) {
                driver->fault(to_string(popped.error()));
                return;
            }
            if (!*popped)
                break;
            queue.complete(std::move(**popped), 0);
        }
        if (queue.needs_interrupt())
            driver->interrupt_queue(index);
    }

    std::array<std::byte, 16> config{};
    std::function<void(std::uint16_t)> on_notify;
    std::function<void()> on_reset;

    bool active = false;
    int activations = 0;
    int resets = 0;
    int broken_calls = 0;  // calls the Device interface rules out
    std::vector<std::uint16_t> notified;
    std::uint64_t features_seen = 0;
    Driver* driver = nullptr;
    std::vector<std::optional<Queue>> queues;
};

}  // namespace masu::virtio::fake

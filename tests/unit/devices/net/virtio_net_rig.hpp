// virtio-net between a driver in ordinary memory and a backend in memory.
#pragma once

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "devices/net/virtio_net.hpp"
#include "tests/unit/devices/net/fake_network.hpp"
#include "tests/unit/devices/virtio/fake_driver.hpp"
#include "tests/unit/devices/virtio/test_driver.hpp"

namespace masu::net::fake {

using virtio::fake::Memory;
using virtio::fake::Ring;
using virtio::fake::TestClock;
using virtio::fake::TestDriver;

inline constexpr std::uint64_t ring_features =
    virtio::feature_version_1 | virtio::feature_indirect_desc | virtio::feature_event_idx;

// The device with its driver, and the transport's part played by hand.
struct Rig {
    explicit Rig(unsigned pair_count = 1, VirtioNet::Options options = {},
                 std::uint64_t without = 0, std::uint16_t ring_size = 256)
        : backend(pair_count) {
        options.mac = guest_mac;
        options.queue_pairs = pair_count;
        device = std::move(*VirtioNet::create("eth0", backend, filter, services, options, *loop,
                                              Log(), metrics, clock));
        features = device->features() & ~without;
        for (unsigned i = 0; i < 2 * pair_count; ++i)
            rings.push_back(
                std::make_unique<Ring>(memory, i % 2 == 0 ? ring_size : 256, ring_features));
        rings.push_back(std::make_unique<Ring>(memory, 64, ring_features));
        activate();
    }
    void activate() {
        std::vector<std::optional<virtio::Queue>> queues;
        for (auto& ring : rings)
            queues.emplace_back(ring->make_queue());
        const std::lock_guard lock(device->mutex());
        device->activate({.memory = &memory.guest(),
                          .features = features | ring_features,
                          .queues = std::move(queues),
                          .driver = &driver});
    }
    void notify(std::uint16_t queue) {
        const std::lock_guard lock(device->mutex());
        device->notify(queue);
    }
    void run() { loop->run_once(0); }
    Ring& rx(unsigned pair = 0) { return *rings[2 * pair]; }
    Ring& tx(unsigned pair = 0) { return *rings[2 * pair + 1]; }
    Ring& control() { return *rings.back(); }

    void send(const Bytes& frame, const NetHeader& header = {}, unsigned pair = 0) {
        tx(pair).chain().append_readable(bytes_of(header)).append_readable(frame).build();
        notify(static_cast<std::uint16_t>(2 * pair + 1));
    }
    virtio::fake::Built give_buffer(std::uint32_t size, unsigned pair = 0) {
        return rx(pair).chain().append_writable(size).build();
    }
    std::byte command(const Bytes& bytes) {
        const auto built = control().chain().append_readable(bytes).append_writable(1).build();
        notify(static_cast<std::uint16_t>(rings.size() - 1));
        REQUIRE(control().take_used());
        return control().written(built)[0];
    }
    std::uint64_t count(const char* name) { return metrics.counter("net_eth0", name).value(); }

    Memory memory{8 * MiB};
    TestClock clock;
    TestDriver driver;
    Metrics metrics;
    FakeBackend backend;
    FakeFilter filter;
    GuestServices* services = nullptr;
    std::unique_ptr<EventLoop> loop = std::move(*EventLoop::create());
    std::uint64_t features = 0;
    std::vector<std::unique_ptr<Ring>> rings;
    std::unique_ptr<VirtioNet> device;
};

// The header of a TCP frame that is sent in segments.
inline NetHeader tso(std::size_t headers, std::uint8_t type = gso_tcpv4) {
    return {.flags = hdr_f_needs_csum,
            .gso_type = type,
            .hdr_len = static_cast<std::uint16_t>(headers),
            .gso_size = 1448,
            .csum_start = 34,
            .csum_offset = 16};
}

}  // namespace masu::net::fake

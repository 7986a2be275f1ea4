// virtio-net: headers, frames, chains and commands of a hostile driver, and frames of a hostile
// network. What reaches the backend must be a whole frame with offload fields that fit it.
#include <sys/eventfd.h>

#include <cstdint>
#include <cstdlib>
#include <memory>

#include "devices/net/virtio_net.hpp"
#include "tests/fuzz/input.hpp"
#include "tests/unit/devices/net/fake_network.hpp"
#include "tests/unit/devices/virtio/fake_driver.hpp"

using namespace masu;
using namespace masu::net;
using fuzz::Input;
using fuzz::require;
using virtio::fake::Memory;
using virtio::fake::Ring;

namespace {

class FixedClock final : public Clock {
  public:
    [[nodiscard]] Nanoseconds now() const noexcept override { return 1'000'000'000; }
    [[nodiscard]] std::uint64_t wall() const noexcept override { return 0; }
};

class Driver final : public virtio::Driver {
  public:
    void interrupt_queue(std::uint16_t /*queue*/) override {}
    void interrupt_config() override {}
    void fault(std::string_view /*why*/) override { faulted = true; }
    bool faulted = false;
};

void check_sent(const fake::FakeBackend& backend) {
    for (const auto& sent : backend.sent) {
        const auto& header = sent.header;
        require(sent.frame.size() >= ethernet_header_size && sent.frame.size() <= max_frame_size);
        require((header.flags & ~hdr_f_needs_csum) == 0);
        if (header.flags != 0)
            require(std::size_t{header.csum_start} + header.csum_offset + 2 <= sent.frame.size());
        if (header.gso_type != gso_none)
            require(header.gso_size != 0 && header.hdr_len <= sent.frame.size());
    }
}

void act(VirtioNet& device, Input& input, std::vector<std::unique_ptr<Ring>>& rings,
         fake::FakeBackend& backend, Driver& driver) {
    for (int step = 0; step < 64 && !input.done() && !driver.faulted; ++step) {
        const auto kind = input.take<std::uint8_t>();
        const std::size_t queue = input.take<std::uint8_t>() % rings.size();
        auto& ring = *rings[queue];
        if (ring.memory().mark() > 6 * MiB)
            return;
        switch (kind % 4) {
            case 0: {  // readable parts of any size
                auto chain = ring.chain();
                for (int part = input.take<std::uint8_t>() % 4; part >= 0; --part)
                    chain.append_readable(input.take_bytes(input.take<std::uint16_t>() % 4096));
                if (input.take<std::uint8_t>() % 2 == 0)
                    chain.append_writable(input.take<std::uint8_t>());
                chain.build();
                break;
            }
            case 1:  // a long frame behind a header of the fuzzer's
                ring.chain()
                    .append_readable(input.take<NetHeader>())
                    .append_readable(input.take_bytes(64))
                    .append_readable(fake::Bytes(input.take<std::uint16_t>()))
                    .build();
                break;
            case 2:
                ring.chain().append_writable(input.take<std::uint16_t>() % 2048).build();
                break;
            default: {
                const auto bytes = input.take_bytes(input.take<std::uint16_t>() % 4096);
                if (bytes.size() >= ethernet_header_size)
                    backend.put(fake::Bytes(bytes.begin(), bytes.end()),
                                static_cast<unsigned>(queue / 2) % backend.queues());
            }
        }
        const std::lock_guard lock(device.mutex());
        device.notify(static_cast<std::uint16_t>(queue));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    constexpr std::uint64_t ring_features =
        virtio::feature_version_1 | virtio::feature_indirect_desc | virtio::feature_event_idx;
    Memory memory(8 * MiB);
    FixedClock clock;
    Driver driver;
    Metrics metrics;
    fake::FakeBackend backend(2);
    fake::FakeFilter filter;
    const auto loop = std::move(*EventLoop::create());
    const auto device = std::move(*VirtioNet::create(
        "f", backend, filter, nullptr, {.queue_pairs = 2}, *loop, Log(), metrics, clock));
    std::vector<std::unique_ptr<Ring>> rings;
    std::vector<std::optional<virtio::Queue>> queues;
    for (int i = 0; i < 5; ++i) {
        rings.push_back(std::make_unique<Ring>(memory, 16, ring_features));
        queues.emplace_back(rings.back()->make_queue());
    }
    {
        const std::lock_guard lock(device->mutex());
        device->activate(
            {.memory = &memory.guest(),
             .features = (device->features() & input.take<std::uint64_t>()) | ring_features,
             .queues = std::move(queues),
             .driver = &driver});
    }
    act(*device, input, rings, backend, driver);
    loop->run_once(0);
    check_sent(backend);
    const std::lock_guard lock(device->mutex());
    device->reset();
    return 0;
}

// A driver that does anything to virtio-mmio's registers, its rings and its timing, with a
// recording device or a real virtio-rng behind it.
//
// Input: a byte that picks the device, then operations of one byte and their operands.
#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "base/event_loop.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "devices/virtio/mmio_transport.hpp"
#include "devices/virtio/rng.hpp"
#include "tests/fuzz/input.hpp"
#include "tests/unit/devices/virtio/fake_device.hpp"
#include "tests/unit/devices/virtio/fake_driver.hpp"

namespace masu::virtio {
namespace {

using fuzz::Input;
using fuzz::require;

class NoLine final : public InterruptLine {
  public:
    void set(bool /*asserted*/) override {}
};

class State {
  public:
    explicit State(Input& input) : input_(input), rng_(make_rng()) {
        recording_ = input_.take<std::uint8_t>() % 2 == 0;
        Device& device = recording_ ? static_cast<Device&>(device_) : *rng_;
        transport_ = std::move(*MmioTransport::create("fuzz", device, memory_.guest(), *loop_,
                                                      line_, metrics_, Log()));
    }

    void step() {
        switch (input_.take<std::uint8_t>() % 8) {
            case 0:
                return write_register();
            case 1:
                return read_anywhere();
            case 2:
                return write_anywhere();
            case 3:
                return poke_memory();
            case 4:
                return publish();
            case 5:
                return loop_->run_once(0);
            case 6:
                return device_event();
            default:
                return bring_up();
        }
    }

    void check() {
        require(device_.broken_calls == 0);
        require(device_.activations - device_.resets == (device_.active ? 1 : 0));
        if (recording_ && (get(0x70) & status::driver_ok) == 0)
            require(!device_.active);
    }

    // After a reset nothing that is still under way may touch the guest's memory.
    void reset_for_good() {
        put(0x70, 0);
        require(get(0x70) == 0);
        require(!device_.active);
        const std::vector<std::byte> before(memory_.bytes().begin(), memory_.bytes().end());
        for (int i = 0; i < 4; ++i)
            loop_->run_once(0);
        require(std::ranges::equal(before, memory_.bytes()));
    }

  private:
    std::unique_ptr<Rng> make_rng() {
        return std::move(*Rng::create({}, *loop_, clock_, metrics_));
    }

    std::uint32_t get(std::uint64_t offset) {
        std::uint32_t value = 0;
        transport_->read(offset, std::as_writable_bytes(std::span(&value, 1)));
        return value;
    }
    void put(std::uint64_t offset, std::uint32_t value) {
        transport_->write(offset, as_bytes_of(value));
    }

    void write_register() {
        const auto offset = input_.take<std::uint8_t>() & 0xfcU;
        put(offset, input_.take<std::uint32_t>());
    }
    void read_anywhere() {
        std::array<std::byte, 8> out{};
        const auto offset = input_.take<std::uint16_t>() % MmioTransport::window_size;
        transport_->read(offset, std::span(out).first(1 + input_.take<std::uint8_t>() % 8U));
    }
    void write_anywhere() {
        const auto offset = input_.take<std::uint16_t>() % MmioTransport::window_size;
        const auto value = input_.take<std::array<std::byte, 8>>();
        transport_->write(offset, std::span(value).first(1 + input_.take<std::uint8_t>() % 8U));
    }
    void poke_memory() {
        const auto address = fake::Memory::base + input_.take<std::uint16_t>();
        const auto size = input_.take<std::uint8_t>();
        (void)memory_.guest().write({address}, input_.take_bytes(size));
    }
    // A one-descriptor buffer, made available and announced.
    void publish() {
        ring_.put_descriptor(0, {.address = fake::Memory::base + input_.take<std::uint16_t>(),
                                 .length = input_.take<std::uint16_t>(),
                                 .flags = input_.take<std::uint8_t>()});
        ring_.make_available(0);
        put(MmioTransport::notify_offset, 0);
    }
    void device_event() {
        const std::lock_guard lock(device_.mutex());
        if (!device_.active)
            return;
        if (input_.take<std::uint8_t>() % 2 == 0)
            device_.driver->interrupt_config();
        else
            device_.driver->fault("the fuzzer says so");
    }
    // The polite way to a running device, up to a step of the input's choice.
    void bring_up() {
        const auto config = ring_.config();
        const std::array<std::pair<std::uint32_t, std::uint64_t>, 16> steps{{
            {0x70, 0x01},
            {0x70, 0x03},
            {0x24, 0},
            {0x20, input_.take<std::uint32_t>() & get(0x10)},
            {0x24, 1},
            {0x20, 1},
            {0x70, 0x0b},
            {0x30, 0},
            {0x38, config.size},
            {0x80, config.desc_table.value},
            {0x90, config.avail.value},
            {0xa0, config.used.value},
            {0x44, 1},
            {0x70, 0x0f},
            {0x50, 0},
            {0x50, 1},
        }};
        const auto count = std::min<std::size_t>(input_.take<std::uint8_t>(), steps.size());
        for (const auto& [offset, value] : std::span(steps).first(count))
            put(offset, static_cast<std::uint32_t>(value));
    }

    Input& input_;
    fake::Memory memory_{64 * 1024};
    fake::Ring ring_{memory_, 4};
    SystemClock clock_;
    Metrics metrics_;
    std::unique_ptr<EventLoop> loop_ = std::move(*EventLoop::create());
    NoLine line_;
    fake::RecordingDevice device_;
    std::unique_ptr<Rng> rng_;
    bool recording_ = true;
    std::unique_ptr<MmioTransport> transport_;
};

}  // namespace
}  // namespace masu::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    masu::fuzz::Input input(data, size);
    masu::virtio::State state(input);
    while (!input.done()) {
        state.step();
        state.check();
    }
    state.reset_for_good();
    return 0;
}

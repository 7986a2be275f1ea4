// A driver that does anything to a virtio-pci function: its BAR, its configuration space with the
// PCI_CFG window, its rings and its timing.
//
// Input: operations of one byte and their operands.
#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/event_loop.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "devices/pci/root.hpp"
#include "devices/virtio/pci_transport.hpp"
#include "tests/fuzz/input.hpp"
#include "tests/unit/devices/pci/fake_pci.hpp"
#include "tests/unit/devices/virtio/fake_device.hpp"
#include "tests/unit/devices/virtio/fake_driver.hpp"

namespace masu::virtio {
namespace {

using fuzz::Input;
using fuzz::require;

class State {
  public:
    explicit State(Input& input) : input_(input) {
        transport_ = std::move(*PciTransport::create("fuzz", device_, memory_.guest(), *loop_,
                                                     bank_, &registrar_, metrics_, Log()));
        require(root_.add(*transport_).has_value());
    }
    ~State() { root_.remove(1); }

    void step() {
        switch (input_.take<std::uint8_t>() % 10) {
            case 0:
                return write_register();
            case 1:
                return access_bar();
            case 2:
                return access_config();
            case 3:
                return use_window();
            case 4:
                return poke_memory();
            case 5:
                return publish();
            case 6:
                return loop_->run_once(0);
            case 7:
                return device_event();
            case 8:
                return save_and_restore();
            default:
                return bring_up();
        }
    }

    void check() {
        require(device_.broken_calls == 0);
        require(device_.activations - device_.resets == (device_.active ? 1 : 0));
        require(bank_.unrouted_signals == 0);
        require(registrar_.broken_removes == 0);
        require(registrar_.events.empty() || registrar_.events.size() == 2);
        if ((get_status() & status::driver_ok) == 0)
            require(!device_.active);
    }

    // After a reset nothing that is still under way may touch the guest's memory.
    void reset_for_good() {
        put(20, 1, 0);
        require(get_status() == 0);
        require(!device_.active);
        const std::vector<std::byte> before(memory_.bytes().begin(), memory_.bytes().end());
        for (int i = 0; i < 4; ++i)
            loop_->run_once(0);
        require(std::ranges::equal(before, memory_.bytes()));
    }

  private:
    void put(std::uint64_t offset, std::size_t size, std::uint64_t value) {
        transport_->write(offset, as_bytes_of(value).first(size));
    }
    std::uint8_t get_status() {
        std::uint8_t value = 0;
        transport_->read(20, std::as_writable_bytes(std::span(&value, 1)));
        return value;
    }

    // A register of the common configuration, in its own width.
    void write_register() {
        constexpr std::array<std::pair<std::uint8_t, std::uint8_t>, 14> registers{{{0, 4},
                                                                                   {8, 4},
                                                                                   {12, 4},
                                                                                   {16, 2},
                                                                                   {20, 1},
                                                                                   {22, 2},
                                                                                   {24, 2},
                                                                                   {26, 2},
                                                                                   {28, 2},
                                                                                   {32, 4},
                                                                                   {36, 4},
                                                                                   {40, 4},
                                                                                   {48, 8},
                                                                                   {58, 2}}};
        const auto [offset, size] = registers[input_.take<std::uint8_t>() % registers.size()];
        put(offset, size, input_.take<std::uint32_t>());
    }
    void access_bar() {
        auto value = input_.take<std::array<std::byte, 8>>();
        const auto kind = input_.take<std::uint8_t>();
        const auto bytes = std::span(value).first(1 + kind / 2 % 8U);
        const auto offset = input_.take<std::uint16_t>() % pci_layout::bar_size;
        if (kind % 2 == 0)
            transport_->read(offset, bytes);
        else
            transport_->write(offset, bytes);
    }
    void access_config() {
        auto value = input_.take<std::array<std::byte, 8>>();
        const auto kind = input_.take<std::uint8_t>();
        const auto bytes = std::span(value).first(1 + kind / 2 % 8U);
        const std::uint64_t offset = 1 << 15 | input_.take<std::uint16_t>() % 0x108U;
        if (kind % 2 == 0)
            root_.ecam().read(offset, bytes);
        else
            root_.ecam().write(offset, bytes);
    }
    // The PCI_CFG capability is the last one.
    void use_window() {
        auto& config = transport_->config();
        auto at = config.get<std::uint8_t>(pci::reg::capabilities);
        while (const auto next = config.get<std::uint8_t>(static_cast<std::uint16_t>(at + 1)))
            at = next;
        const std::uint64_t base = 1 << 15 | at;
        const auto bar = static_cast<std::uint8_t>(input_.take<std::uint8_t>() % 4 == 0 ? 1 : 0);
        const std::uint32_t offset = input_.take<std::uint16_t>();
        const std::uint32_t length = input_.take<std::uint8_t>() % 6U;
        auto data = input_.take<std::uint32_t>();
        root_.ecam().write(base + 4, as_bytes_of(bar));
        root_.ecam().write(base + 8, as_bytes_of(offset));
        root_.ecam().write(base + 12, as_bytes_of(length));
        root_.ecam().write(base + 16, as_bytes_of(data));
        root_.ecam().read(base + 16, std::as_writable_bytes(std::span(&data, 1)));
    }
    void poke_memory() {
        const auto address = fake::Memory::base + input_.take<std::uint16_t>();
        const auto size = input_.take<std::uint8_t>();
        (void)memory_.guest().write({address}, input_.take_bytes(size));
    }
    void publish() {
        ring_.put_descriptor(0, {.address = fake::Memory::base + input_.take<std::uint16_t>(),
                                 .length = input_.take<std::uint16_t>(),
                                 .flags = input_.take<std::uint8_t>()});
        ring_.make_available(0);
        put(pci_layout::notify, 2, 0);
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
    void save_and_restore() {
        require(transport_->restore(transport_->save()).has_value());
        require(transport_->msix().restore(transport_->msix().save()).has_value());
    }
    // The polite way to a running device, up to a step of the input's choice.
    void bring_up() {
        struct Write {
            std::uint32_t offset;
            std::uint8_t size;
            std::uint64_t value;
        };
        const auto config = ring_.config();
        const std::array<Write, 17> steps{{
            {20, 1, 0x01},
            {20, 1, 0x03},
            {8, 4, 0},
            {12, 4, input_.take<std::uint32_t>() & offered},
            {8, 4, 1},
            {12, 4, 1},
            {20, 1, 0x0b},
            {pci_layout::msix_table + 12, 4, 0},
            {16, 2, 0},
            {22, 2, 0},
            {26, 2, input_.take<std::uint8_t>()},
            {24, 2, config.size},
            {32, 8, config.desc_table.value},
            {40, 8, config.avail.value},
            {48, 8, config.used.value},
            {28, 2, 1},
            {20, 1, 0x0f},
        }};
        const auto count = std::min<std::size_t>(input_.take<std::uint8_t>(), steps.size());
        for (const auto& [offset, size, value] : std::span(steps).first(count))
            put(offset, size, value);
    }

    static constexpr std::uint32_t offered =
        fake::RecordingDevice::own_feature | feature_indirect_desc | feature_event_idx;

    Input& input_;
    fake::Memory memory_{64 * 1024};
    fake::Ring ring_{memory_, 4};
    Metrics metrics_;
    std::unique_ptr<EventLoop> loop_ = std::move(*EventLoop::create());
    Bus mmio_;
    pci::fake::RecordingBank bank_;
    pci::fake::RecordingRegistrar registrar_;
    fake::RecordingDevice device_;
    pci::Root root_{mmio_, {.start = 0xd000'0000, .end = 0xd001'0000}, metrics_, Log()};
    std::unique_ptr<PciTransport> transport_;
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

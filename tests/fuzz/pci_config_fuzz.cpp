// A guest that does anything to configuration space, by ECAM and by port, and to MSI-X tables.
//
// Input: operations of one byte and their operands.
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/log.hpp"
#include "base/metrics.hpp"
#include "devices/bus.hpp"
#include "devices/pci/msix.hpp"
#include "devices/pci/root.hpp"
#include "tests/fuzz/input.hpp"
#include "tests/unit/devices/pci/fake_pci.hpp"

namespace masu::pci {
namespace {

using fuzz::Input;
using fuzz::require;

constexpr MemoryWindow window{.start = 0xd000'0000, .end = 0xd004'0000};
constexpr std::uint64_t pba_offset = 0x800;
constexpr Identity identity{.vendor = 0x1af4, .device = 1};

// BAR 0 holds MSI-X; its last bytes answer with the function's mark. BAR 2 is 64 bits wide.
class MsixFunction final : public Function, public BusDevice {
  public:
    MsixFunction(std::uint8_t mark, unsigned vectors) : mark_(mark), msix_(bank, vectors) {
        require(config_.add_bar(0, BarKind::Memory32, bar_size).has_value());
        require(config_.add_bar(2, BarKind::Memory64, bar_size).has_value());
        require(
            msix_.add_capability(config_, {.bar = 0, .table_offset = 0, .pba_offset = pba_offset})
                .has_value());
    }
    ConfigSpace& config() override { return config_; }
    void write_config(std::uint16_t offset, std::span<const std::byte> data) override {
        config_.write(offset, data);
        msix_.config_written(config_);
    }
    BusDevice* bar_device(unsigned) override { return this; }
    void bar_moved(unsigned bar, std::optional<std::uint64_t> address) override {
        require(bar == 0 || bar == 2);
        require(told[bar] != address);
        told[bar] = address;
    }
    void read(std::uint64_t offset, std::span<std::byte> data) override {
        require(offset < bar_size && data.size() <= bar_size - offset);
        if (offset == bar_size - 1)
            data[0] = std::byte{mark_};
        msix_.read_table(offset, data);
        if (offset >= pba_offset)
            msix_.read_pba(offset - pba_offset, data);
    }
    void write(std::uint64_t offset, std::span<const std::byte> data) override {
        require(offset < bar_size && data.size() <= bar_size - offset);
        msix_.write_table(offset, data);
    }
    void signal(unsigned vector) { msix_.signal(vector); }
    void save_and_restore() {
        require(msix_.restore(msix_.save()).has_value());
        config_.restore(ConfigState(config_.save()));
    }

    static constexpr std::uint64_t bar_size = 0x1000;
    fake::RecordingBank bank;
    std::array<std::optional<std::uint64_t>, bar_count> told;

  private:
    std::uint8_t mark_;
    ConfigSpace config_{identity};
    Msix msix_;
};

class State {
  public:
    explicit State(Input& input) : input_(input) {
        require(mmio_.insert(0xd003'0000, 0x1000, other_, "other").has_value());
        for (auto& function : functions_)
            require(root_.add(function).has_value());
    }
    ~State() {
        root_.remove(1);
        root_.remove(2);
    }

    void step() {
        auto value = input_.take<std::array<std::byte, 8>>();
        const auto bytes = std::span(value).first(1 + input_.take<std::uint8_t>() % 8U);
        const auto near_header = (input_.take<std::uint8_t>() % 3U) << 15;
        const auto small = input_.take<std::uint8_t>();
        switch (input_.take<std::uint8_t>() % 9) {
            case 0:
                return root_.ecam().write(near_header | small, bytes);
            case 1:
                return root_.ecam().write(input_.take<std::uint32_t>() % (ecam_bus_size + 8),
                                          bytes);
            case 2:
                return root_.ecam().read(input_.take<std::uint32_t>() % (ecam_bus_size + 8), bytes);
            case 3:
                return root_.ports().write(small % 9U, bytes);
            case 4:
                return root_.ports().read(small % 9U, bytes);
            case 5:
                mmio_.write(window.start + input_.take<std::uint32_t>() % 0x4'0000, bytes);
                return;
            case 6:
                mmio_.read(window.start + input_.take<std::uint32_t>() % 0x4'0000, bytes);
                return;
            case 7:
                return functions_[small % 2].signal(small / 2);
            default:
                functions_[small % 2].save_and_restore();
                root_.restore(root_.save());
        }
    }

    // No two functions are told overlapping places, and what decodes in the window answers there.
    void check() {
        constexpr auto size = MsixFunction::bar_size;
        for (unsigned n = 0; n < 4; ++n) {
            auto& function = functions_[n / 2];
            const unsigned bar = n % 2 * 2;
            require(function.bank.unrouted_signals == 0);
            const auto told = function.told[bar];
            if (!told)
                continue;
            require(*told >= window.start && *told <= window.end - size);
            require(*told != 0xd003'0000);
            for (unsigned m = 0; m < n; ++m)
                require(functions_[m / 2].told[m % 2 * 2] != told);
            auto& config = function.config();
            if (!config.memory_enabled())
                continue;
            require(config.bar_address(bar) == *told);
            std::byte mark{};
            require(mmio_.read(*told + size - 1, std::span(&mark, 1)));
            require(mark == static_cast<std::byte>(1 + n / 2));
        }
    }

  private:
    struct Silent final : BusDevice {
        void read(std::uint64_t, std::span<std::byte>) override {}
        void write(std::uint64_t, std::span<const std::byte>) override {}
    };

    Input& input_;
    Bus mmio_;
    Metrics metrics_;
    Silent other_;
    std::array<MsixFunction, 2> functions_{{{1, 3}, {2, 70}}};
    Root root_{mmio_, window, metrics_, Log()};
};

}  // namespace
}  // namespace masu::pci

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    masu::fuzz::Input input(data, size);
    masu::pci::State state(input);
    while (!input.done()) {
        state.step();
        state.check();
    }
    return 0;
}

// A guest that does anything to the legacy devices; state must stay bounded and bytes accounted
// for.
#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "devices/legacy/acpi_power.hpp"
#include "devices/legacy/ged.hpp"
#include "devices/legacy/i8042.hpp"
#include "devices/legacy/ioapic.hpp"
#include "devices/legacy/milestone.hpp"
#include "devices/legacy/pvpanic.hpp"
#include "devices/legacy/rtc.hpp"
#include "devices/legacy/serial.hpp"
#include "tests/fuzz/input.hpp"

using namespace masu;
using namespace masu::legacy;
using masu::fuzz::Input;
using masu::fuzz::require;

namespace {

class Bank final : public MsiBank {
  public:
    void route(unsigned index, std::optional<MsiMessage> message) override {
        require(index < ioapic_pin_count);
        // Whatever the guest programs stays a write to a LAPIC.
        require(!message || message->address >> 20 == 0xfee);
        routed_[index] = message.has_value();
    }
    void signal(unsigned index) override {
        require(index < ioapic_pin_count);
        require(routed_[index]);
    }

  private:
    std::array<bool, ioapic_pin_count> routed_{};
};

class FixedClock final : public Clock {
  public:
    [[nodiscard]] Nanoseconds now() const noexcept override { return 0; }
    [[nodiscard]] std::uint64_t wall() const noexcept override { return wall_; }
    std::uint64_t wall_ = 1'700'000'000'000'000'000;
};

struct Machine {
    Machine() {
        auto made =
            Serial::create(*loop, ioapic.line(4), metrics,
                           [this](std::span<const std::byte> bytes) { delivered += bytes.size(); });
        require(made.has_value());
        serial = std::move(*made);
    }

    std::unique_ptr<EventLoop> loop = EventLoop::create().value();
    Metrics metrics;
    FixedClock clock;
    Bank bank;
    Ioapic ioapic{bank};
    std::uint64_t delivered = 0;
    std::unique_ptr<Serial> serial;
    Rtc rtc{clock};
    I8042 i8042{ioapic.line(1), [] {}};
    Pvpanic pvpanic{[](Pvpanic::Event) {}};
    AcpiPower power{1, [] {}, [] {}};
    GenericEventDevice ged{ioapic.line(9)};
    unsigned milestones = 0;
    MilestoneDevice milestone{[this] { ++milestones; }};

    struct Place {
        BusDevice* device;
        std::uint64_t size;
    };
    std::array<Place, 8> places() {
        return {{{&ioapic, 0x48},
                 {serial.get(), serial_port_count},
                 {&rtc, Rtc::port_count},
                 {&i8042, I8042::port_count},
                 {&pvpanic, Pvpanic::port_count},
                 {&power, AcpiPower::port_count},
                 {&ged, 8},
                 {&milestone, 8}}};
    }
};

// What is not a register access: the world outside the guest.
void outside_event(Machine& machine, Input& input) {
    switch (input.take<std::uint8_t>() % 8) {
        case 0: {
            const std::array<std::byte, 300> keys{};
            const std::size_t count = input.take<std::uint8_t>();
            require(machine.serial->input(std::span(keys).first(count)) <= count);
            break;
        }
        case 1:
            machine.serial->flush();
            break;
        case 2:
            machine.ioapic.line(input.take<std::uint8_t>() % ioapic_pin_count)
                .set((input.take<std::uint8_t>() & 1) != 0);
            break;
        case 3:
            machine.ioapic.end_of_interrupt(input.take<std::uint8_t>());
            break;
        case 4:
            machine.ged.raise(GedEvent::PowerButton);
            break;
        case 5:
            (void)machine.i8042.send_ctrl_alt_del();
            break;
        case 6:
            machine.clock.wall_ += 1'000'000'000;
            break;
        default: {
            machine.ioapic.restore(machine.ioapic.save());
            machine.rtc.restore(machine.rtc.save());
            machine.i8042.restore(machine.i8042.save());
            machine.serial->restore(machine.serial->save());
            break;
        }
    }
}

void access(Machine& machine, std::uint8_t operation, Input& input) {
    const auto place = machine.places()[operation & 7];
    const std::uint64_t offset = input.take<std::uint8_t>() % place.size;
    const auto width = std::min<std::uint64_t>(1 + (operation >> 3 & 7), place.size - offset);
    std::array<std::byte, 8> data{};
    data.fill(std::byte{0xff});
    const auto used = std::span(data).first(width);
    if ((operation & 0x40) == 0) {
        place.device->read(offset, used);
        return;
    }
    for (auto& byte : used)
        byte = std::byte{input.take<std::uint8_t>()};
    // Repeated as `rep outs` does, to fill buffers.
    const unsigned times = (operation & 0x80) != 0 ? 1U + input.take<std::uint8_t>() * 64U : 1U;
    for (unsigned i = 0; i < times; ++i)
        place.device->write(offset, used);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Machine machine;
    Input input(data, std::min<std::size_t>(size, 4096));
    while (!input.done()) {
        const auto operation = input.take<std::uint8_t>();
        // Reads need no repetition: bit 7 without bit 6 is an event from outside.
        if ((operation & 0xc0) == 0x80)
            outside_event(machine, input);
        else
            access(machine, operation, input);
    }
    machine.serial->flush();
    require(machine.delivered == machine.metrics.counter("uart", "out_bytes").value());
    require(machine.milestones <= 1);
    return 0;
}

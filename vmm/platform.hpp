// The fixed devices of the machine (IOAPIC, COM1, RTC, i8042, ACPI, pvpanic), wired to the buses.
#pragma once

#include <functional>
#include <memory>

#include "base/clock.hpp"
#include "base/event_loop.hpp"
#include "base/metrics.hpp"
#include "base/result.hpp"
#include "devices/bus.hpp"
#include "devices/interrupt.hpp"
#include "devices/legacy/acpi_power.hpp"
#include "devices/legacy/ged.hpp"
#include "devices/legacy/i8042.hpp"
#include "devices/legacy/ioapic.hpp"
#include "devices/legacy/milestone.hpp"
#include "devices/legacy/pvpanic.hpp"
#include "devices/legacy/rtc.hpp"
#include "devices/legacy/serial.hpp"

namespace masu {

// What the guest can ask of the machine through these devices. Called on vCPU threads.
struct PlatformEvents {
    std::function<void()> power_off;
    std::function<void()> reset;
    std::function<void(legacy::Pvpanic::Event)> panic;
    std::function<void()> init_reached;
    std::function<void(std::uint8_t)> firmware_event;  // firmware::FirmwareEvent, as written
};

// The fixed devices in a snapshot.
struct SavedPlatform {
    legacy::IoapicState ioapic;
    legacy::RtcState rtc;
    legacy::I8042State i8042;
    legacy::SerialState com1;
    std::uint32_t ged_pending = 0;
    std::uint8_t sleep_control = 0;
};

// Owns the devices; buses, bank, loop, clock and metrics are borrowed and outlive it. The ranges
// stay on the buses: destroy the vCPUs first.
class Platform {
  public:
    [[nodiscard]] static Result<std::unique_ptr<Platform>> create(
        Bus& ports, Bus& mmio, MsiBank& ioapic_pins, EventLoop& loop, const Clock& clock,
        Metrics& metrics, legacy::Serial::Sink console_output, PlatformEvents events);

    [[nodiscard]] legacy::Ioapic& ioapic() noexcept { return ioapic_; }
    [[nodiscard]] legacy::Serial& com1() noexcept { return *com1_; }
    [[nodiscard]] legacy::I8042& i8042() noexcept { return i8042_; }
    [[nodiscard]] legacy::GenericEventDevice& ged() noexcept { return ged_; }

    // Loop's thread, the vCPUs standing still. save() first hands what the guest has sent to its
    // console on; restore() is for a platform fresh from create().
    [[nodiscard]] SavedPlatform save();
    void restore(const SavedPlatform& state);

  private:
    Platform(MsiBank& ioapic_pins, const Clock& clock, PlatformEvents events);
    [[nodiscard]] Result<> attach(Bus& ports, Bus& mmio);

    legacy::Ioapic ioapic_;
    legacy::Rtc rtc_;
    legacy::I8042 i8042_;
    legacy::AcpiPower acpi_power_;
    legacy::Pvpanic pvpanic_;
    legacy::GenericEventDevice ged_;
    legacy::MilestoneDevice milestone_;
    std::unique_ptr<legacy::Serial> com1_;
};

}  // namespace masu

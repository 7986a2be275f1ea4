// Puts the fixed devices where vmm/layout.hpp says they are.
#include "vmm/platform.hpp"

#include "vmm/layout.hpp"

namespace masu {
namespace {
constexpr unsigned keyboard_gsi = 1;
}

Platform::Platform(MsiBank& ioapic_pins, const Clock& clock, PlatformEvents events)
    : ioapic_(ioapic_pins),
      rtc_(clock),
      i8042_(ioapic_.line(keyboard_gsi), events.reset),
      acpi_power_(layout::acpi_reset_value, std::move(events.power_off), events.reset),
      pvpanic_(std::move(events.panic)),
      ged_(ioapic_.line(layout::ged_gsi)),
      milestone_(std::move(events.init_reached), std::move(events.firmware_event)) {}

Result<std::unique_ptr<Platform>> Platform::create(Bus& ports, Bus& mmio, MsiBank& ioapic_pins,
                                                   EventLoop& loop, const Clock& clock,
                                                   Metrics& metrics,
                                                   legacy::Serial::Sink console_output,
                                                   PlatformEvents events) {
    auto platform = std::unique_ptr<Platform>(new Platform(ioapic_pins, clock, std::move(events)));
    platform->com1_ = TRY(legacy::Serial::create(loop, platform->ioapic_.line(layout::com1_gsi),
                                                 metrics, std::move(console_output)));
    TRY(platform->attach(ports, mmio));
    return platform;
}

SavedPlatform Platform::save() {
    com1_->flush();
    return {.ioapic = ioapic_.save(),
            .rtc = rtc_.save(),
            .i8042 = i8042_.save(),
            .com1 = com1_->save(),
            .ged_pending = ged_.save(),
            .sleep_control = acpi_power_.save()};
}

// The IOAPIC last: while its pins are masked, as at first, what the others do to their lines goes
// no further, and then it takes over the lines as they were.
void Platform::restore(const SavedPlatform& state) {
    rtc_.restore(state.rtc);
    i8042_.restore(state.i8042);
    com1_->restore(state.com1);
    ged_.restore(state.ged_pending);
    acpi_power_.restore(state.sleep_control);
    ioapic_.restore(state.ioapic);
}

Result<> Platform::attach(Bus& ports, Bus& mmio) {
    TRY(ports.insert(layout::i8042_port, legacy::I8042::port_count, i8042_, "i8042"));
    TRY(ports.insert(layout::rtc_port, legacy::Rtc::port_count, rtc_, "rtc"));
    TRY(ports.insert(layout::com1_port, legacy::serial_port_count, *com1_, "com1"));
    TRY(ports.insert(layout::pvpanic_port, legacy::Pvpanic::port_count, pvpanic_, "pvpanic"));
    TRY(ports.insert(layout::milestone_port, legacy::MilestoneDevice::port_count, milestone_,
                     "milestone"));
    TRY(ports.insert(layout::acpi_sleep_port, legacy::AcpiPower::port_count, acpi_power_,
                     "ACPI power"));
    TRY(mmio.insert(layout::ioapic, legacy::ioapic_mmio_size, ioapic_, "ioapic"));
    TRY(mmio.insert(layout::ged_mmio, legacy::GenericEventDevice::mmio_size, ged_, "GED"));
    return mmio.insert(layout::boot_timer_mmio, legacy::MilestoneDevice::mmio_size, milestone_,
                       "milestone");
}

}  // namespace masu

#include "vmm/acpi/dsdt.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "devices/legacy/acpi_power.hpp"
#include "devices/legacy/ged.hpp"
#include "devices/legacy/i8042.hpp"
#include "devices/legacy/pvpanic.hpp"
#include "devices/legacy/rtc.hpp"
#include "devices/legacy/serial.hpp"
#include "vmm/layout.hpp"

namespace masu::acpi {
namespace {

using namespace aml;

constexpr std::uint64_t present_and_working = 0x0f;  // _STA

Bytes cpus(unsigned count) {
    Bytes all;
    for (unsigned n = 0; n < count; ++n)
        append(all, device(fmt::format("C{:03X}", n),
                           join({name("_HID", string("ACPI0007")), name("_UID", integer(n))})));
    return all;
}

// PCI Firmware 3.3, 4.5.1. The root has no ports: the guest may own the PCIe capabilities, and
// there is no hot-plug, PME or AER to own.
Bytes pci_osc() {
    constexpr std::uint64_t express_capability_control = 1 << 4;
    constexpr std::uint64_t unknown_uuid = 1 << 2;
    constexpr std::uint64_t unknown_revision = 1 << 3;
    constexpr std::uint64_t capabilities_masked = 1 << 4;
    const auto status = path("CDW1");
    const auto control = path("CDW3");
    const auto for_host_bridges = join(
        {create_dword_field(argument(3), 8, "CDW3"), store(control, local(0)),
         bit_and(local(0), integer(express_capability_control), control),
         when(not_equal(argument(1), integer(1)),
              bit_or(status, integer(unknown_revision), status)),
         when(not_equal(control, local(0)), bit_or(status, integer(capabilities_masked), status))});
    return method(
        "_OSC", 4, true,
        join({create_dword_field(argument(3), 0, "CDW1"),
              when(equal(argument(0), uuid("33db4d5b-1ff7-401c-9657-7441c03dd766")),
                   for_host_bridges),
              otherwise(bit_or(status, integer(unknown_uuid), status)), give(argument(3))}));
}

// No _PRT: functions have no interrupt pin, only MSI-X.
Bytes pci_root() {
    constexpr std::uint8_t config_port_count = 8;
    return device(
        "PCI0",
        join({name("_HID", eisa_id("PNP0A08")), name("_CID", eisa_id("PNP0A03")),
              name("_UID", integer(0)), name("_SEG", integer(0)), name("_BBN", integer(0)),
              name("_CRS", resource_template(
                               {bus_numbers(0, layout::pci_ecam_size / 0x10'0000 - 1),
                                io_ports(layout::pci_config_port, config_port_count),
                                memory32_window(layout::pci_mmio32, layout::pci_mmio32_end - 1)})),
              pci_osc()}));
}

// Linux trusts an ECAM window only when a motherboard resource covers it.
Bytes motherboard(bool pci) {
    Bytes ranges = join({memory32_fixed(layout::boot_timer_mmio, 0x1000),
                         memory32_fixed(layout::ged_mmio, legacy::GenericEventDevice::mmio_size),
                         io_ports(layout::milestone_port, 1),
                         io_ports(layout::acpi_sleep_port, legacy::AcpiPower::port_count)});
    if (pci)
        append(ranges, memory32_fixed(layout::pci_ecam, layout::pci_ecam_size));
    return device("MBRS", join({name("_HID", eisa_id("PNP0C02")), name("_UID", integer(0)),
                                name("_CRS", resource_template({ranges}))}));
}

Bytes com1() {
    return device(
        "COM1",
        join(
            {name("_HID", eisa_id("PNP0501")), name("_UID", integer(1)),
             name("_DDN", string("COM1")),
             name("_CRS", resource_template({io_ports(layout::com1_port, legacy::serial_port_count),
                                             edge_interrupt(layout::com1_gsi)}))}));
}

Bytes real_time_clock() {
    return device("RTC", join({name("_HID", eisa_id("PNP0B00")),
                               name("_CRS", resource_template({io_ports(
                                                layout::rtc_port, legacy::Rtc::port_count)}))}));
}

Bytes keyboard() {
    constexpr unsigned keyboard_gsi = 1;
    constexpr std::uint16_t status_port = layout::i8042_port + 4;
    return device("KBD", join({name("_HID", eisa_id("PNP0303")),
                               name("_CRS", resource_template({io_ports(layout::i8042_port, 1),
                                                               io_ports(status_port, 1),
                                                               edge_interrupt(keyboard_gsi)}))}));
}

Bytes panic_notifier() {
    return device("PEVT",
                  join({name("_HID", string("QEMU0001")),
                        name("_CRS", resource_template({io_ports(layout::pvpanic_port,
                                                                 legacy::Pvpanic::port_count)})),
                        name("_STA", integer(present_and_working))}));
}

Bytes power_button() {
    return device("PWRB", join({name("_HID", eisa_id("PNP0C0C")), name("_UID", integer(0))}));
}

// Virtual Machine Generation ID (Microsoft, 2012): ADDR gives the address of the 16 bytes in two
// halves. Linux binds its driver to the compatible ID.
Bytes generation_counter() {
    return device("VGEN",
                  join({name("_HID", string("MASU0001")), name("_CID", string("VM_Gen_Counter")),
                        name("_DDN", string("VM_Gen_Counter")),
                        name("ADDR", package({integer(layout::generation_id),
                                              integer(layout::generation_id >> 32)}))}));
}

// ACPI 6.5, 5.6.9: one interrupt; _EVT reads (and so clears) the waiting events.
Bytes generic_event_device() {
    constexpr std::uint64_t button_pressed = 0x80;
    constexpr std::uint64_t generation_changed = 0x80;
    const auto waiting = [](legacy::GedEvent event) {
        return bit_and(local(0), integer(std::to_underlying(event)), nowhere());
    };
    const auto on_interrupt =
        join({store(path("ESEL"), local(0)),
              when(waiting(legacy::GedEvent::PowerButton), notify("\\_SB.PWRB", button_pressed)),
              when(waiting(legacy::GedEvent::VmGenerationId),
                   notify("\\_SB.VGEN", generation_changed))});
    return device("GED",
                  join({name("_HID", string("ACPI0013")), name("_UID", integer(0)),
                        name("_CRS", resource_template({edge_interrupt(layout::ged_gsi)})),
                        system_memory_region("GEDR", layout::ged_mmio, sizeof(std::uint32_t)),
                        dword_field("GEDR", "ESEL"), method("_EVT", 1, true, on_interrupt)}));
}

Bytes virtio_mmio(const std::vector<VirtioMmioDevice>& devices) {
    Bytes all;
    for (unsigned n = 0; n < devices.size(); ++n) {
        const auto base = devices[n].base;
        const auto gsi = devices[n].gsi;
        const auto users = std::count_if(devices.begin(), devices.end(),
                                         [gsi](const auto& other) { return other.gsi == gsi; });
        const auto sharing = users > 1 ? Sharing::Shared : Sharing::Exclusive;
        append(all, device(fmt::format("VR{:02X}", n),
                           join({name("_HID", string("LNRO0005")), name("_UID", integer(n)),
                                 name("_CRS", resource_template(
                                                  {memory32_fixed(base, layout::virtio_mmio_size),
                                                   edge_interrupt(gsi, sharing)}))})));
    }
    return all;
}

}  // namespace

Bytes build_dsdt_body(const Description& description) {
    Bytes system_bus = cpus(description.vcpus);
    if (description.pci)
        append(system_bus, pci_root());
    append(system_bus, join({motherboard(description.pci), com1(), real_time_clock(), keyboard(),
                             panic_notifier(), power_button(), generation_counter(),
                             generic_event_device(), virtio_mmio(description.virtio_mmio)}));
    const auto sleep_type = integer(legacy::AcpiPower::sleep_type_s5);
    return join({scope("\\_SB", system_bus),
                 name("\\_S5", package({sleep_type, integer(0), integer(0), integer(0)}))});
}

}  // namespace masu::acpi

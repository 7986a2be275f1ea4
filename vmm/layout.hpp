// Where everything lies in the guest's address spaces. One table, so that nothing can overlap.
#pragma once

#include <cstdint>

namespace masu::layout {

// Guest-physical memory. RAM: [0, 3 GiB) and, for the rest, from 4 GiB up.
inline constexpr std::uint64_t low_ram_end = 0xc000'0000;
inline constexpr std::uint64_t high_ram_start = 0x1'0000'0000;

// Fixed places in low RAM that direct boot uses.
inline constexpr std::uint64_t boot_gdt = 0x500;
inline constexpr std::uint64_t pvh_start_info = 0x6000;
inline constexpr std::uint64_t zero_page = 0x7000;
inline constexpr std::uint64_t firmware_info = 0x6000;  // of a firmware boot, in PVH's place
inline constexpr std::uint64_t boot_stack = 0x8ff0;
inline constexpr std::uint64_t boot_page_tables =
    0x9000;  // PML4, PDPT, 4 page directories: 6 pages
inline constexpr std::uint64_t command_line = 0x20000;
inline constexpr std::uint64_t command_line_max = 0x10000;
inline constexpr std::uint64_t ebda_start = 0x9fc00;  // reserved from here to 1 MiB
inline constexpr std::uint64_t acpi_rsdp = 0xe0000;   // scanned for by kernels: 0xe0000-0xfffff
inline constexpr std::uint64_t acpi_tables = 0xe1000;
inline constexpr std::uint64_t acpi_tables_end = 0xef000;
inline constexpr std::uint64_t generation_id = 0xef000;  // VM generation ID: 16 bytes of a page
inline constexpr std::uint64_t smbios = 0xf0000;         // scanned for: 0xf0000-0xfffff
inline constexpr std::uint64_t smbios_end = 0xf'fff0;
inline constexpr std::uint64_t reset_vector =
    0xf'fff0;  // F000:FFF0, where a CPU starts after reset
inline constexpr std::uint64_t high_memory_start = 0x10'0000;

// MMIO between low RAM and 4 GiB.
inline constexpr std::uint64_t boot_timer_mmio =
    0xc000'0000;                                           // where Firecracker has it: write 123
inline constexpr std::uint64_t virtio_mmio = 0xc000'1000;  // one 4 KiB window a device
inline constexpr std::uint64_t virtio_mmio_size = 0x1000;
inline constexpr unsigned virtio_mmio_slots = 32;
inline constexpr std::uint64_t ged_mmio = 0xc010'0000;    // ACPI generic event device, 4 KiB
inline constexpr std::uint64_t pci_mmio32 = 0xd000'0000;  // BARs
inline constexpr std::uint64_t pci_mmio32_end = 0xe000'0000;
inline constexpr std::uint64_t pci_ecam = 0xe000'0000;  // 1 bus = 1 MiB
inline constexpr std::uint64_t pci_ecam_size = 0x10'0000;
inline constexpr std::uint64_t ioapic = 0xfec0'0000;
inline constexpr std::uint64_t lapic = 0xfee0'0000;
inline constexpr std::uint64_t kvm_identity_map = 0xfeff'c000;
inline constexpr std::uint64_t kvm_tss = 0xfeff'd000;  // 3 pages

// Ports.
inline constexpr std::uint16_t rtc_port = 0x70;          // 2
inline constexpr std::uint16_t i8042_port = 0x60;        // 0x60-0x64
inline constexpr std::uint16_t com1_port = 0x3f8;        // 8
inline constexpr std::uint16_t pvpanic_port = 0x505;     // 1
inline constexpr std::uint16_t milestone_port = 0x50a;   // 1: write 123 = init reached
inline constexpr std::uint16_t acpi_sleep_port = 0x600;  // SLEEP_CONTROL, SLEEP_STATUS
inline constexpr std::uint16_t acpi_reset_port = 0x602;  // RESET_REG: write acpi_reset_value
inline constexpr std::uint8_t acpi_reset_value = 0x01;
inline constexpr std::uint16_t pci_config_port = 0xcf8;  // 8: CF8-CFF

// Interrupts (GSIs). 0-23 are the pins of the IOAPIC; MSI routes come after.
inline constexpr unsigned ioapic_pins = 24;
inline constexpr unsigned com1_gsi = 4;
inline constexpr unsigned ged_gsi = 9;
inline constexpr unsigned virtio_mmio_first_gsi = 10;  // 10..23, shared round robin beyond that
inline constexpr unsigned msi_first_gsi = 24;

}  // namespace masu::layout

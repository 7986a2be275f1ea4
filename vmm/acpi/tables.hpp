// The ACPI tables of a machine: hardware-reduced, built from a plain description of it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.hpp"
#include "devices/guest_memory.hpp"

namespace masu::acpi {

inline constexpr unsigned max_vcpus = 32;

struct VirtioMmioDevice {
    std::uint64_t base = 0;  // layout::virtio_mmio_size bytes
    unsigned gsi = 0;        // edge-triggered IOAPIC pin; may be shared
};

// What the tables depend on; every address is in vmm/layout.hpp. vCPU n has local APIC id n.
struct Description {
    unsigned vcpus = 1;  // 1 to max_vcpus
    bool pci = true;     // root bus with ECAM and the 32-bit window
    std::vector<VirtioMmioDevice> virtio_mmio;
};

// Table bytes and where they go; each table starts 16-byte aligned within `tables`.
struct Tables {
    std::vector<std::byte> rsdp;    // at layout::acpi_rsdp
    std::vector<std::byte> tables;  // at layout::acpi_tables, ends before layout::acpi_tables_end
};

// RSDP, XSDT, FADT (revision 6), MADT, MCFG when there is PCI, DSDT. Fails on a description out of
// bounds.
[[nodiscard]] Result<Tables> build_tables(const Description& description);

// Builds them and writes them to their places in low RAM.
[[nodiscard]] Result<> install_tables(const Description& description, const GuestMemory& memory);

}  // namespace masu::acpi

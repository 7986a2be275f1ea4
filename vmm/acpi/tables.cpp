#include "vmm/acpi/tables.hpp"

#include <span>
#include <string_view>

#include "base/bytes.hpp"
#include "vmm/acpi/aml.hpp"
#include "vmm/acpi/dsdt.hpp"
#include "vmm/layout.hpp"

namespace masu::acpi {
namespace {

constexpr std::size_t table_alignment = 16;
constexpr std::size_t checksum_offset = 9;

constexpr std::string_view oem_id = "MASU  ";
constexpr std::string_view oem_table_id = "MASUVMM ";
constexpr std::string_view creator_id = "MASU";

// What makes the bytes of a table sum to zero.
std::byte checksum(std::span<const std::byte> bytes) {
    unsigned sum = 0;
    for (const auto byte : bytes)
        sum += std::to_integer<unsigned>(byte);
    return static_cast<std::byte>(0U - sum);
}

// ACPI 6.5, 5.2.6
Bytes table(std::string_view signature, std::uint8_t revision, const Bytes& body) {
    constexpr std::size_t header_size = 36;
    Bytes out;
    append(out, signature);
    append(out, header_size + body.size(), 4);
    append(out, revision, 1);
    append(out, 0, 1);  // checksum
    append(out, oem_id);
    append(out, oem_table_id);
    append(out, 1, 4);  // OEM revision
    append(out, creator_id);
    append(out, 1, 4);  // creator revision
    append(out, body);
    out[checksum_offset] = checksum(out);
    return out;
}

// 5.2.3.2: a generic address of one 8-bit port.
Bytes port_register(std::uint16_t port) {
    constexpr unsigned system_io = 1;
    constexpr unsigned byte_access = 1;
    Bytes out;
    append(out, system_io, 1);
    append(out, 8, 1);  // bit width
    append(out, 0, 1);  // bit offset
    append(out, byte_access, 1);
    append(out, port, 8);
    return out;
}

// 5.2.9. Hardware-reduced: all of the fixed hardware's fields stay zero.
Bytes fadt(std::uint64_t dsdt_address) {
    constexpr unsigned enterprise_server = 4;
    constexpr unsigned boot_8042 = 1 << 1;
    constexpr unsigned boot_no_vga = 1 << 2;
    constexpr unsigned boot_no_aspm = 1 << 4;
    constexpr unsigned flag_wbinvd = 1 << 0;
    constexpr unsigned flag_no_fixed_power_button = 1 << 4;
    constexpr unsigned flag_no_fixed_sleep_button = 1 << 5;
    constexpr unsigned flag_no_fixed_rtc_wake = 1 << 6;
    constexpr unsigned flag_reset_register = 1 << 10;
    constexpr unsigned flag_hardware_reduced = 1 << 20;
    constexpr unsigned c2_never = 101;   // microseconds; above 100: no C2
    constexpr unsigned c3_never = 1001;  // above 1000: no C3
    constexpr unsigned century_register = 0x32;
    constexpr unsigned minor_version = 5;

    Bytes body;
    append(body, 0, 4);             // FIRMWARE_CTRL: no FACS
    append(body, dsdt_address, 4);  // DSDT
    append(body, 0, 1);
    append(body, enterprise_server, 1);
    append(body, 0, 2 + 4);      // SCI_INT, SMI_CMD
    append(body, 0, 4);          // ACPI_ENABLE .. PSTATE_CNT
    append(body, Bytes(8 * 4));  // PM1a_EVT_BLK .. GPE1_BLK
    append(body, 0, 8);          // PM1_EVT_LEN .. CST_CNT
    append(body, c2_never, 2);
    append(body, c3_never, 2);
    append(body, 0, 8);  // FLUSH_SIZE .. MON_ALRM
    append(body, century_register, 1);
    append(body, boot_8042 | boot_no_vga | boot_no_aspm, 2);
    append(body, 0, 1);
    append(body,
           flag_wbinvd | flag_no_fixed_power_button | flag_no_fixed_sleep_button |
               flag_no_fixed_rtc_wake | flag_reset_register | flag_hardware_reduced,
           4);
    append(body, port_register(layout::acpi_reset_port));
    append(body, layout::acpi_reset_value, 1);
    append(body, 0, 2);  // ARM_BOOT_ARCH
    append(body, minor_version, 1);
    append(body, 0, 8);             // X_FIRMWARE_CTRL
    append(body, dsdt_address, 8);  // X_DSDT
    append(body, Bytes(8 * 12));    // X_PM1a_EVT_BLK .. X_GPE1_BLK
    append(body, port_register(layout::acpi_sleep_port));
    append(body, port_register(layout::acpi_sleep_port + 1));
    append(body, std::string_view("MASU\0\0\0\0", 8));  // hypervisor vendor identity
    return table("FACP", 6, body);
}

// 5.2.12. No source overrides: the guest has no 8259 and so no ISA interrupts to remap; each
// device in the DSDT names its pin and trigger.
Bytes madt(unsigned vcpus) {
    enum EntryType : std::uint8_t { LocalApic = 0, IoApic = 1, LocalApicNmi = 4 };
    constexpr unsigned enabled = 1;
    constexpr unsigned all_processors = 0xff;
    constexpr unsigned lint1 = 1;

    Bytes body;
    append(body, layout::lapic, 4);
    append(body, 0, 4);  // flags: no 8259
    for (unsigned n = 0; n < vcpus; ++n) {
        append(body, LocalApic, 1);
        append(body, 8, 1);
        append(body, n, 1);  // processor UID
        append(body, n, 1);  // APIC id
        append(body, enabled, 4);
    }
    append(body, IoApic, 1);
    append(body, 12, 1);
    append(body, 0, 2);  // IOAPIC id, reserved
    append(body, layout::ioapic, 4);
    append(body, 0, 4);  // first GSI
    append(body, LocalApicNmi, 1);
    append(body, 6, 1);
    append(body, all_processors, 1);
    append(body, 0, 2);  // polarity and trigger as the bus has them
    append(body, lint1, 1);
    return table("APIC", 5, body);
}

// PCI Firmware 3.3, 4.1.2
Bytes mcfg() {
    constexpr std::uint64_t bus_size = 0x10'0000;
    Bytes body;
    append(body, 0, 8);
    append(body, layout::pci_ecam, 8);
    append(body, 0, 2 + 1);  // segment, first bus
    append(body, layout::pci_ecam_size / bus_size - 1, 1);
    append(body, 0, 4);
    return table("MCFG", 1, body);
}

// 5.2.5.3
Bytes rsdp(std::uint64_t xsdt_address) {
    constexpr std::size_t first_part = 20;
    constexpr std::size_t size = 36;
    constexpr std::size_t first_checksum = 8;
    constexpr std::size_t whole_checksum = 32;
    Bytes out;
    append(out, std::string_view("RSD PTR "));
    append(out, 0, 1);
    append(out, oem_id);
    append(out, 2, 1);  // revision
    append(out, 0, 4);  // RSDT: none
    append(out, size, 4);
    append(out, xsdt_address, 8);
    append(out, 0, 4);  // checksum of all, reserved
    out[first_checksum] = checksum(std::span(out).first(first_part));
    out[whole_checksum] = checksum(out);
    return out;
}

// Lays tables out one behind the other.
class Area {
  public:
    // The address the table got.
    std::uint64_t place(const Bytes& table_bytes) {
        bytes_.resize(align_up(bytes_.size(), table_alignment));
        const auto address = layout::acpi_tables + bytes_.size();
        append(bytes_, table_bytes);
        return address;
    }
    Bytes take() { return std::move(bytes_); }

  private:
    Bytes bytes_;
};

Result<> check(const Description& description) {
    if (description.vcpus < 1 || description.vcpus > max_vcpus)
        return fail("ACPI tables: {} vCPUs asked for, 1 to {} are possible", description.vcpus,
                    max_vcpus);
    if (description.virtio_mmio.size() > layout::virtio_mmio_slots)
        return fail("ACPI tables: {} virtio-mmio devices asked for, at most {} are possible",
                    description.virtio_mmio.size(), layout::virtio_mmio_slots);
    for (const auto& device : description.virtio_mmio)
        if (device.gsi >= layout::ioapic_pins || device.base > 0xffff'ffff)
            return fail("ACPI tables: virtio-mmio device at {:#x}, GSI {} is out of range",
                        device.base, device.gsi);
    return {};
}

}  // namespace

Result<Tables> build_tables(const Description& description) {
    TRY(check(description));
    Area area;
    const auto dsdt = area.place(table("DSDT", 2, build_dsdt_body(description)));
    std::vector<std::uint64_t> listed{area.place(fadt(dsdt)), area.place(madt(description.vcpus))};
    if (description.pci)
        listed.push_back(area.place(mcfg()));

    Bytes addresses;
    for (const auto address : listed)
        append(addresses, address, 8);
    const auto xsdt = area.place(table("XSDT", 1, addresses));

    Tables result{rsdp(xsdt), area.take()};
    constexpr auto room = layout::acpi_tables_end - layout::acpi_tables;
    if (result.tables.size() > room)
        return fail("ACPI tables: {} bytes do not fit in {}", result.tables.size(), room);
    return result;
}

Result<> install_tables(const Description& description, const GuestMemory& memory) {
    const auto built = TRY(build_tables(description));
    if (!memory.write({layout::acpi_rsdp}, built.rsdp) ||
        !memory.write({layout::acpi_tables}, built.tables))
        return fail("ACPI tables: guest memory ends below {:#x}", layout::acpi_tables_end);
    return {};
}

}  // namespace masu::acpi

#include "vmm/boot/firmware.hpp"

#include <cstddef>
#include <cstring>
#include <span>

#include "base/bytes.hpp"
#include "devices/legacy/acpi_power.hpp"
#include "firmware/boot_info.hpp"
#include "vmm/boot/e820.hpp"
#include "vmm/layout.hpp"

// firmware/embed.S
extern "C" {
extern const std::byte masu_firmware_image[];
extern const std::byte masu_firmware_image_end[];
}

namespace masu::boot {

namespace {

constexpr std::uint64_t page = 4 * KiB;

std::span<const std::byte> image() {
    return {masu_firmware_image, masu_firmware_image_end};
}

firmware::BootInfo describe(const FirmwareBoot& boot, std::uint64_t image_start,
                            const GuestMemory& memory) {
    firmware::BootInfo info;
    info.rsdp = layout::acpi_rsdp;
    info.smbios = layout::smbios;
    info.ecam = layout::pci_ecam;
    info.image_start = image_start;
    info.flags = boot.boot_menu ? firmware::flag_boot_menu : 0;
    info.boot_device = boot.boot_device;
    info.com1_port = layout::com1_port;
    info.rtc_port = layout::rtc_port;
    info.milestone_port = layout::milestone_port;
    info.sleep_port = layout::acpi_sleep_port;
    info.reset_port = layout::acpi_reset_port;
    info.reset_value = layout::acpi_reset_value;
    info.sleep_type_s5 = legacy::AcpiPower::sleep_type_s5;
    if (!boot.load_options.empty()) {
        info.load_options = layout::command_line;
        info.load_options_size = static_cast<std::uint32_t>(boot.load_options.size());
    }
    const auto add = [&](std::uint64_t start, std::uint64_t size, firmware::RangeType type) {
        if (info.range_count < firmware::max_memory_ranges)
            info.ranges[info.range_count++] = {start, size, type, 0};
    };
    for (const auto& entry : e820_map(memory)) {
        if (entry.type == E820Type::Ram) {
            add(entry.start, entry.size, firmware::RangeType::Ram);
        } else if (entry.start == layout::ebda_start) {
            // The tables lie in here; a kernel may use their memory once it has read them.
            add(layout::acpi_rsdp, layout::acpi_tables_end - layout::acpi_rsdp,
                firmware::RangeType::AcpiTables);
            add(layout::acpi_tables_end, layout::high_memory_start - layout::acpi_tables_end,
                firmware::RangeType::Reserved);
        } else {
            add(entry.start, entry.size, firmware::RangeType::Reserved);
        }
    }
    return info;
}

}  // namespace

Result<EntryState> load_firmware(const FirmwareBoot& boot, const GuestMemory& memory) {
    firmware::ImageHeader header{};
    static_assert(sizeof header <= page);
    std::memcpy(&header, image().data(), sizeof header);
    const auto& low = memory.regions().front();
    const auto low_end = low.start.value + low.bytes.size();
    const auto size = align_up(header.memory_size, page);
    if (low_end < size + layout::high_memory_start)
        return fail("guest memory is too small for the firmware: give the VM at least 64 MiB");
    const auto start = (low_end - size) & ~(page - 1);
    const auto options = std::as_bytes(std::span(boot.load_options));
    if (options.size() > layout::command_line_max)
        return fail("the boot loader's command line has {} bytes: shorten it", options.size());
    if (!memory.write(GuestAddress{start}, image()) ||
        !memory.write(GuestAddress{layout::command_line}, options) ||
        !memory.store(GuestAddress{layout::firmware_info}, describe(boot, start, memory)))
        return fail("guest memory has no room for the firmware");
    TRY(write_entry_tables(memory, EntryMode::Long64));
    return EntryState{EntryMode::Long64, start + header.entry, layout::firmware_info};
}

Result<> tell_tsc_frequency(std::uint64_t khz, const GuestMemory& memory) {
    constexpr auto field = layout::firmware_info + offsetof(firmware::BootInfo, tsc_khz);
    if (!memory.store(GuestAddress{field}, khz))
        return fail("guest memory has no room for the firmware");
    return {};
}

}  // namespace masu::boot

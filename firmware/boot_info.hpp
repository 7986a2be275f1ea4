// What the monitor tells the firmware, and the head of the firmware's image: a wire format.
#pragma once

#include <cstdint>

namespace masu::firmware {

inline constexpr std::uint64_t boot_info_magic = 0x4942'5746'5553'414d;  // "MASUFWBI"
inline constexpr std::uint32_t boot_info_version = 1;
inline constexpr std::uint32_t max_memory_ranges = 16;

// E820 numbers.
enum class RangeType : std::uint32_t { Ram = 1, Reserved = 2, AcpiTables = 3 };

struct PhysicalRange {
    std::uint64_t start = 0;
    std::uint64_t size = 0;  // bytes
    RangeType type = RangeType::Ram;
    std::uint32_t reserved = 0;
};
static_assert(sizeof(PhysicalRange) == 24);

inline constexpr std::uint32_t flag_boot_menu = 1U << 0;  // wait for a key that opens the menu

// All addresses are guest-physical. The firmware refuses another magic, version or size.
struct BootInfo {
    std::uint64_t magic = boot_info_magic;
    std::uint32_t version = boot_info_version;
    std::uint32_t size = sizeof(BootInfo);
    std::uint64_t rsdp = 0;
    std::uint64_t smbios = 0;   // SMBIOS 3 entry point
    std::uint64_t ecam = 0;     // PCI configuration space of bus 0
    std::uint64_t tsc_khz = 0;  // 0: not known
    std::uint64_t image_start = 0;  // where the monitor put the firmware
    std::uint32_t flags = 0;
    std::uint32_t boot_device = 0;  // 1: the first disk, ...; 0: each in turn
    std::uint16_t com1_port = 0;
    std::uint16_t rtc_port = 0;
    std::uint16_t milestone_port = 0;
    std::uint16_t sleep_port = 0;  // ACPI SLEEP_CONTROL
    std::uint16_t reset_port = 0;  // ACPI RESET_REG
    std::uint8_t reset_value = 0;
    std::uint8_t sleep_type_s5 = 0;  // SLP_TYP of soft-off
    std::uint32_t range_count = 0;
    std::uint64_t load_options = 0;  // text for the first boot loader's command line, ASCII
    std::uint32_t load_options_size = 0;
    std::uint32_t reserved = 0;
    PhysicalRange ranges[max_memory_ranges];  // ascending, page-aligned, not overlapping
};
static_assert(sizeof(BootInfo) == 96 + max_memory_ranges * sizeof(PhysicalRange));

inline constexpr std::uint64_t image_magic = 0x4d49'5746'5553'414d;  // "MASUFWIM"

// The first bytes of the firmware's image. It is position-independent: the monitor copies
// image_size bytes to a page of its choice in RAM below 4 GiB, of which memory_size bytes from
// there on are zero otherwise, and enters at start + entry in 64-bit mode with RSI = BootInfo, the
// low 4 GiB mapped 1:1 and interrupts off.
struct ImageHeader {
    std::uint64_t magic;
    std::uint32_t version;  // boot_info_version
    std::uint32_t entry;
    std::uint64_t image_size;
    std::uint64_t memory_size;
};
static_assert(sizeof(ImageHeader) == 32);

// Written to the milestone port (123 there is user space's "init is reached").
enum class FirmwareEvent : std::uint8_t {
    Entry = 0xf0,           // the firmware runs
    LoaderStarted = 0xf1,   // StartImage of the first boot loader
    KernelHandover = 0xf2,  // ExitBootServices has succeeded, or the kernel is entered directly
    NothingToBoot = 0xfe,   // no disk boots; the console says why
    Crash = 0xff,           // an exception in the firmware or in a boot loader; the console says more
};

}  // namespace masu::firmware

// Nodes of device paths (UEFI 10.3), as they lie in memory.
#pragma once

#include "firmware/efi/types.hpp"

namespace masu::firmware::efi {

inline constexpr std::uint8_t type_hardware = 1;
inline constexpr std::uint8_t type_acpi = 2;
inline constexpr std::uint8_t type_messaging = 3;
inline constexpr std::uint8_t type_media = 4;
inline constexpr std::uint8_t type_end = 0x7f;
inline constexpr std::uint8_t media_hard_drive = 1;
inline constexpr std::uint8_t media_vendor = 3;
inline constexpr std::uint8_t media_file_path = 4;

// 10.3.2.1, 10.3.3.1
struct PciNode {
    DevicePath head{type_hardware, 1, {6, 0}};
    std::uint8_t function = 0;
    std::uint8_t device = 0;
} __attribute__((packed));
static_assert(sizeof(PciNode) == 6);
struct AcpiNode {
    DevicePath head{type_acpi, 1, {12, 0}};
    std::uint32_t hid = 0x0a03'41d0;  // PNP0A03
    std::uint32_t uid = 0;
} __attribute__((packed));
static_assert(sizeof(AcpiNode) == 12);
// 10.3.5.1
struct HardDriveNode {
    DevicePath head{type_media, media_hard_drive, {42, 0}};
    std::uint32_t number = 0;
    std::uint64_t start = 0;
    std::uint64_t size = 0;
    std::uint8_t signature[16] = {};
    std::uint8_t format = 0;          // 1: MBR, 2: GPT
    std::uint8_t signature_type = 0;  // 1: MBR's 32 bits, 2: GUID
} __attribute__((packed));
static_assert(sizeof(HardDriveNode) == 42);
// 10.3.4.15, a UART; 115200 8n1
struct UartNode {
    DevicePath head{type_messaging, 14, {19, 0}};
    std::uint32_t reserved = 0;
    std::uint64_t baud = 115200;
    std::uint8_t data_bits = 8;
    std::uint8_t parity = 1;
    std::uint8_t stop_bits = 1;
} __attribute__((packed));
static_assert(sizeof(UartNode) == 19);
struct EndNode {
    DevicePath head{type_end, 0xff, {4, 0}};
} __attribute__((packed));

}  // namespace masu::firmware::efi

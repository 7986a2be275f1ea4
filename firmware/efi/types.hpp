// Types and tables of the UEFI specification (2.10), in its own words; section numbers beside them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#define EFIAPI __attribute__((ms_abi))

namespace masu::firmware::efi {

// Appendix D. Errors have the highest bit set, warnings have not.
enum class Status : std::uint64_t {
    Success = 0,
    WarnUnknownGlyph = 1,
    WarnDeleteFailure = 2,
    WarnWriteFailure = 3,
    WarnBufferTooSmall = 4,
    LoadError = 1ULL << 63 | 1,
    InvalidParameter = 1ULL << 63 | 2,
    Unsupported = 1ULL << 63 | 3,
    BadBufferSize = 1ULL << 63 | 4,
    BufferTooSmall = 1ULL << 63 | 5,
    NotReady = 1ULL << 63 | 6,
    DeviceError = 1ULL << 63 | 7,
    WriteProtected = 1ULL << 63 | 8,
    OutOfResources = 1ULL << 63 | 9,
    VolumeCorrupted = 1ULL << 63 | 10,
    NoMedia = 1ULL << 63 | 12,
    MediaChanged = 1ULL << 63 | 13,
    NotFound = 1ULL << 63 | 14,
    AccessDenied = 1ULL << 63 | 15,
    NoMapping = 1ULL << 63 | 17,
    Timeout = 1ULL << 63 | 18,
    NotStarted = 1ULL << 63 | 19,
    AlreadyStarted = 1ULL << 63 | 20,
    Aborted = 1ULL << 63 | 21,
    SecurityViolation = 1ULL << 63 | 26,
    EndOfFile = 1ULL << 63 | 31,
};
[[nodiscard]] constexpr bool is_error(Status status) noexcept {
    return static_cast<std::uint64_t>(status) >> 63 != 0;
}

struct Guid {
    std::uint32_t a;
    std::uint16_t b;
    std::uint16_t c;
    std::uint8_t d[8];
    friend constexpr bool operator==(const Guid& x, const Guid& y) noexcept {
        for (int i = 0; i < 8; ++i)
            if (x.d[i] != y.d[i])
                return false;
        return x.a == y.a && x.b == y.b && x.c == y.c;
    }
};
static_assert(sizeof(Guid) == 16);

using Handle = void*;
using Event = void*;
using Tpl = std::uint64_t;
using PhysicalAddress = std::uint64_t;
using Bool = std::uint8_t;

inline constexpr std::uint64_t page_size = 4096;
[[nodiscard]] constexpr std::uint64_t pages_for(std::uint64_t bytes) noexcept {
    return bytes / page_size + (bytes % page_size != 0 ? 1 : 0);
}

struct TableHeader {
    std::uint64_t signature;
    std::uint32_t revision;
    std::uint32_t header_size;
    std::uint32_t crc32;
    std::uint32_t reserved;
};

// 7.2
enum class MemoryType : std::uint32_t {
    Reserved,
    LoaderCode,
    LoaderData,
    BootServicesCode,
    BootServicesData,
    RuntimeServicesCode,
    RuntimeServicesData,
    Conventional,
    Unusable,
    AcpiReclaim,
    AcpiNvs,
    Mmio,
    MmioPorts,
    PalCode,
    Persistent,
    Unaccepted,
    End,
};
enum class AllocateType : std::uint32_t { AnyPages, MaxAddress, Address };
inline constexpr std::uint64_t memory_wb = 0x8;
inline constexpr std::uint64_t memory_xp = 0x4000;
inline constexpr std::uint64_t memory_ro = 0x2'0000;
inline constexpr std::uint64_t memory_runtime = 1ULL << 63;

struct MemoryDescriptor {
    std::uint32_t type;
    std::uint32_t padding;
    PhysicalAddress physical_start;
    std::uint64_t virtual_start;
    std::uint64_t page_count;
    std::uint64_t attribute;
};
static_assert(sizeof(MemoryDescriptor) == 40);
inline constexpr std::uint32_t memory_descriptor_version = 1;

// 7.1
inline constexpr std::uint32_t event_timer = 0x8000'0000;
inline constexpr std::uint32_t event_runtime = 0x4000'0000;
inline constexpr std::uint32_t event_notify_wait = 0x100;
inline constexpr std::uint32_t event_notify_signal = 0x200;
inline constexpr std::uint32_t event_exit_boot_services = 0x201;
inline constexpr std::uint32_t event_virtual_address_change = 0x6000'0202;
inline constexpr Tpl tpl_application = 4;
inline constexpr Tpl tpl_callback = 8;
inline constexpr Tpl tpl_notify = 16;
inline constexpr Tpl tpl_high = 31;
enum class TimerDelay : std::uint32_t { Cancel, Periodic, Relative };
using EventNotify = void(EFIAPI*)(Event event, void* context);

// 8.3
struct Time {
    std::uint16_t year;
    std::uint8_t month;
    std::uint8_t day;
    std::uint8_t hour;
    std::uint8_t minute;
    std::uint8_t second;
    std::uint8_t pad1;
    std::uint32_t nanosecond;
    std::int16_t time_zone;
    std::uint8_t daylight;
    std::uint8_t pad2;
};
static_assert(sizeof(Time) == 16);
inline constexpr std::int16_t unspecified_time_zone = 0x7ff;
struct TimeCapabilities {
    std::uint32_t resolution;
    std::uint32_t accuracy;
    Bool sets_to_zero;
};
enum class ResetType : std::uint32_t { Cold, Warm, Shutdown, PlatformSpecific };

// 8.2
inline constexpr std::uint32_t variable_non_volatile = 0x1;
inline constexpr std::uint32_t variable_boot_access = 0x2;
inline constexpr std::uint32_t variable_runtime_access = 0x4;
inline constexpr std::uint32_t variable_append = 0x40;

// 10.2. Nodes are packed and unaligned; length counts the head.
struct DevicePath {
    std::uint8_t type;
    std::uint8_t subtype;
    std::uint8_t length[2];
};
static_assert(sizeof(DevicePath) == 4);

// 8.1
struct RuntimeServices {
    TableHeader header;
    Status(EFIAPI* get_time)(Time*, TimeCapabilities*);
    Status(EFIAPI* set_time)(Time*);
    Status(EFIAPI* get_wakeup_time)(Bool*, Bool*, Time*);
    Status(EFIAPI* set_wakeup_time)(Bool, Time*);
    Status(EFIAPI* set_virtual_address_map)(std::uint64_t, std::uint64_t, std::uint32_t,
                                            MemoryDescriptor*);
    Status(EFIAPI* convert_pointer)(std::uint64_t, void**);
    Status(EFIAPI* get_variable)(const char16_t*, const Guid*, std::uint32_t*, std::uint64_t*,
                                 void*);
    Status(EFIAPI* get_next_variable_name)(std::uint64_t*, char16_t*, Guid*);
    Status(EFIAPI* set_variable)(const char16_t*, const Guid*, std::uint32_t, std::uint64_t,
                                 const void*);
    Status(EFIAPI* get_next_high_monotonic_count)(std::uint32_t*);
    void(EFIAPI* reset_system)(ResetType, Status, std::uint64_t, const void*);
    Status(EFIAPI* update_capsule)(void**, std::uint64_t, PhysicalAddress);
    Status(EFIAPI* query_capsule_capabilities)(void**, std::uint64_t, std::uint64_t*, ResetType*);
    Status(EFIAPI* query_variable_info)(std::uint32_t, std::uint64_t*, std::uint64_t*,
                                        std::uint64_t*);
};
static_assert(sizeof(RuntimeServices) == 136);

enum class InterfaceType : std::uint32_t { Native };
enum class LocateSearch : std::uint32_t { AllHandles, ByRegisterNotify, ByProtocol };
inline constexpr std::uint32_t open_by_handle_protocol = 0x01;
inline constexpr std::uint32_t open_get_protocol = 0x02;
inline constexpr std::uint32_t open_test_protocol = 0x04;
inline constexpr std::uint32_t open_by_child_controller = 0x08;
inline constexpr std::uint32_t open_by_driver = 0x10;
inline constexpr std::uint32_t open_exclusive = 0x20;

struct OpenProtocolInformation {
    Handle agent;
    Handle controller;
    std::uint32_t attributes;
    std::uint32_t open_count;
};

struct SystemTable;
using ImageEntry = Status(EFIAPI*)(Handle image, SystemTable* table);

// 7. The whole table, in the specification's order.
struct BootServices {
    TableHeader header;
    Tpl(EFIAPI* raise_tpl)(Tpl);
    void(EFIAPI* restore_tpl)(Tpl);
    Status(EFIAPI* allocate_pages)(AllocateType, MemoryType, std::uint64_t, PhysicalAddress*);
    Status(EFIAPI* free_pages)(PhysicalAddress, std::uint64_t);
    Status(EFIAPI* get_memory_map)(std::uint64_t*, MemoryDescriptor*, std::uint64_t*,
                                   std::uint64_t*, std::uint32_t*);
    Status(EFIAPI* allocate_pool)(MemoryType, std::uint64_t, void**);
    Status(EFIAPI* free_pool)(void*);
    Status(EFIAPI* create_event)(std::uint32_t, Tpl, EventNotify, void*, Event*);
    Status(EFIAPI* set_timer)(Event, TimerDelay, std::uint64_t);
    Status(EFIAPI* wait_for_event)(std::uint64_t, Event*, std::uint64_t*);
    Status(EFIAPI* signal_event)(Event);
    Status(EFIAPI* close_event)(Event);
    Status(EFIAPI* check_event)(Event);
    Status(EFIAPI* install_protocol_interface)(Handle*, const Guid*, InterfaceType, void*);
    Status(EFIAPI* reinstall_protocol_interface)(Handle, const Guid*, void*, void*);
    Status(EFIAPI* uninstall_protocol_interface)(Handle, const Guid*, void*);
    Status(EFIAPI* handle_protocol)(Handle, const Guid*, void**);
    void* reserved;
    Status(EFIAPI* register_protocol_notify)(const Guid*, Event, void**);
    Status(EFIAPI* locate_handle)(LocateSearch, const Guid*, void*, std::uint64_t*, Handle*);
    Status(EFIAPI* locate_device_path)(const Guid*, DevicePath**, Handle*);
    Status(EFIAPI* install_configuration_table)(const Guid*, void*);
    Status(EFIAPI* load_image)(Bool, Handle, DevicePath*, void*, std::uint64_t, Handle*);
    Status(EFIAPI* start_image)(Handle, std::uint64_t*, char16_t**);
    Status(EFIAPI* exit)(Handle, Status, std::uint64_t, char16_t*);
    Status(EFIAPI* unload_image)(Handle);
    Status(EFIAPI* exit_boot_services)(Handle, std::uint64_t);
    Status(EFIAPI* get_next_monotonic_count)(std::uint64_t*);
    Status(EFIAPI* stall)(std::uint64_t);
    Status(EFIAPI* set_watchdog_timer)(std::uint64_t, std::uint64_t, std::uint64_t,
                                       const char16_t*);
    Status(EFIAPI* connect_controller)(Handle, Handle*, DevicePath*, Bool);
    Status(EFIAPI* disconnect_controller)(Handle, Handle, Handle);
    Status(EFIAPI* open_protocol)(Handle, const Guid*, void**, Handle, Handle, std::uint32_t);
    Status(EFIAPI* close_protocol)(Handle, const Guid*, Handle, Handle);
    Status(EFIAPI* open_protocol_information)(Handle, const Guid*, OpenProtocolInformation**,
                                              std::uint64_t*);
    Status(EFIAPI* protocols_per_handle)(Handle, Guid***, std::uint64_t*);
    Status(EFIAPI* locate_handle_buffer)(LocateSearch, const Guid*, void*, std::uint64_t*,
                                         Handle**);
    Status(EFIAPI* locate_protocol)(const Guid*, void*, void**);
    Status(EFIAPI* install_multiple_protocol_interfaces)(Handle*, ...);
    Status(EFIAPI* uninstall_multiple_protocol_interfaces)(Handle, ...);
    Status(EFIAPI* calculate_crc32)(const void*, std::uint64_t, std::uint32_t*);
    void(EFIAPI* copy_mem)(void*, const void*, std::uint64_t);
    void(EFIAPI* set_mem)(void*, std::uint64_t, std::uint8_t);
    Status(EFIAPI* create_event_ex)(std::uint32_t, Tpl, EventNotify, const void*, const Guid*,
                                    Event*);
};
static_assert(sizeof(BootServices) == 24 + 44 * 8);

struct ConfigurationTable {
    Guid guid;
    void* table;
};

struct SimpleTextInput;
struct SimpleTextOutput;

// 4.3
struct SystemTable {
    TableHeader header;
    char16_t* firmware_vendor;
    std::uint32_t firmware_revision;
    Handle console_in_handle;
    SimpleTextInput* con_in;
    Handle console_out_handle;
    SimpleTextOutput* con_out;
    Handle standard_error_handle;
    SimpleTextOutput* std_err;
    RuntimeServices* runtime_services;
    BootServices* boot_services;
    std::uint64_t configuration_table_count;
    ConfigurationTable* configuration_table;
};
static_assert(sizeof(SystemTable) == 120);

inline constexpr std::uint64_t system_table_signature = 0x5453'5953'2049'4249;
inline constexpr std::uint64_t boot_services_signature = 0x5652'4553'544f'4f42;
inline constexpr std::uint64_t runtime_services_signature = 0x5652'4553'544e'5552;
inline constexpr std::uint32_t uefi_revision = 2 << 16 | 100;  // 2.10

}  // namespace masu::firmware::efi

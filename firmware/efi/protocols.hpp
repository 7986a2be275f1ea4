// Protocols of the UEFI specification that the firmware offers or calls, and their GUIDs.
#pragma once

#include "firmware/efi/types.hpp"

namespace masu::firmware::efi {

namespace guid {
inline constexpr Guid loaded_image{0x5b1b31a1, 0x9562, 0x11d2, {0x8e, 0x3f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
inline constexpr Guid loaded_image_device_path{0xbc62157e, 0x3e33, 0x4fec, {0x99, 0x20, 0x2d, 0x3b, 0x36, 0xd7, 0x50, 0xdf}};
inline constexpr Guid device_path{0x09576e91, 0x6d3f, 0x11d2, {0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
inline constexpr Guid device_path_to_text{0x8b843e20, 0x8132, 0x4852, {0x90, 0xcc, 0x55, 0x1a, 0x4e, 0x4a, 0x7f, 0x1c}};
inline constexpr Guid driver_binding{0x18a031ab, 0xb443, 0x4d1a, {0xa5, 0xc0, 0x0c, 0x09, 0x26, 0x1e, 0x9f, 0x71}};
inline constexpr Guid simple_text_input{0x387477c1, 0x69c7, 0x11d2, {0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
inline constexpr Guid simple_text_input_ex{0xdd9e7534, 0x7762, 0x4698, {0x8c, 0x14, 0xf5, 0x85, 0x17, 0xa6, 0x25, 0xaa}};
inline constexpr Guid simple_text_output{0x387477c2, 0x69c7, 0x11d2, {0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
inline constexpr Guid serial_io{0xbb25cf6f, 0xf1d4, 0x11d2, {0x9a, 0x0c, 0x00, 0x90, 0x27, 0x3f, 0xc1, 0xfd}};
inline constexpr Guid block_io{0x964e5b21, 0x6459, 0x11d2, {0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
inline constexpr Guid disk_io{0xce345171, 0xba0b, 0x11d2, {0x8e, 0x4f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
inline constexpr Guid simple_file_system{0x964e5b22, 0x6459, 0x11d2, {0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
inline constexpr Guid file_info{0x09576e92, 0x6d3f, 0x11d2, {0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
inline constexpr Guid file_system_info{0x09576e93, 0x6d3f, 0x11d2, {0x8e, 0x39, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
inline constexpr Guid volume_label{0xdb47d7d3, 0xfe81, 0x11d3, {0x9a, 0x35, 0x00, 0x90, 0x27, 0x3f, 0xc1, 0x4d}};
inline constexpr Guid load_file{0x56ec3091, 0x954c, 0x11d2, {0x8e, 0x3f, 0x00, 0xa0, 0xc9, 0x69, 0x72, 0x3b}};
inline constexpr Guid load_file2{0x4006c0c1, 0xfcb3, 0x403e, {0x99, 0x6d, 0x4a, 0x6c, 0x87, 0x24, 0xe0, 0x6d}};
inline constexpr Guid linux_initrd_media{0x5568e427, 0x68fc, 0x4f3d, {0xac, 0x74, 0xca, 0x55, 0x52, 0x31, 0xcc, 0x68}};
inline constexpr Guid unicode_collation2{0xa4c751fc, 0x23ae, 0x4c3e, {0x92, 0xe9, 0x49, 0x64, 0xcf, 0x63, 0xf3, 0x49}};
inline constexpr Guid rng{0x3152bca5, 0xeade, 0x433d, {0x86, 0x2e, 0xc0, 0x1c, 0xdc, 0x29, 0x1f, 0x44}};
inline constexpr Guid rng_algorithm_raw{0xe43176d7, 0xb6e8, 0x4827, {0xb7, 0x84, 0x7f, 0xfd, 0xc4, 0xb6, 0x85, 0x61}};
inline constexpr Guid acpi20_table{0x8868e871, 0xe4f1, 0x11d3, {0xbc, 0x22, 0x00, 0x80, 0xc7, 0x3c, 0x88, 0x81}};
inline constexpr Guid smbios3_table{0xf2fd1544, 0x9794, 0x4a2c, {0x99, 0x2e, 0xe5, 0xbb, 0xcf, 0x20, 0xe3, 0x94}};
inline constexpr Guid memory_attributes_table{0xdcfa911d, 0x26eb, 0x469f, {0xa2, 0x20, 0x38, 0xb7, 0xdc, 0x46, 0x12, 0x20}};
inline constexpr Guid rt_properties_table{0xeb66918a, 0x7eef, 0x402a, {0x84, 0x2e, 0x93, 0x1d, 0x21, 0xc3, 0x8a, 0xe9}};
inline constexpr Guid global_variable{0x8be4df61, 0x93ca, 0x11d2, {0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c}};
inline constexpr Guid group_exit_boot_services{0x27abf055, 0xb1b8, 0x4c26, {0x80, 0x48, 0x74, 0x8f, 0x37, 0xba, 0xa2, 0xdf}};
inline constexpr Guid group_before_exit_boot_services{0x8be0e274, 0x3970, 0x4b44, {0x80, 0xc5, 0x1a, 0xb9, 0x50, 0x2f, 0x3b, 0xfc}};
inline constexpr Guid group_virtual_address_change{0x13fa7698, 0xc831, 0x49c7, {0x87, 0xea, 0x8f, 0x43, 0xfc, 0xc2, 0x51, 0x96}};
inline constexpr Guid group_memory_map_change{0x78bee926, 0x692f, 0x48fd, {0x9e, 0xdb, 0x01, 0x42, 0x2e, 0xf0, 0xd7, 0xab}};
inline constexpr Guid group_ready_to_boot{0x7ce88fb3, 0x4bd7, 0x4679, {0x87, 0xa8, 0xa8, 0xd8, 0xde, 0xe5, 0x0d, 0x2b}};
}  // namespace guid

// 9.1
struct LoadedImage {
    std::uint32_t revision;
    Handle parent;
    SystemTable* system_table;
    Handle device;
    DevicePath* file_path;
    void* reserved;
    std::uint32_t load_options_size;
    void* load_options;
    void* image_base;
    std::uint64_t image_size;
    MemoryType code_type;
    MemoryType data_type;
    Status(EFIAPI* unload)(Handle);
};
static_assert(sizeof(LoadedImage) == 96);

// 12.3, 12.2
struct InputKey {
    std::uint16_t scan_code;
    char16_t unicode;
};
struct SimpleTextInput {
    Status(EFIAPI* reset)(SimpleTextInput*, Bool);
    Status(EFIAPI* read_key)(SimpleTextInput*, InputKey*);
    Event wait_for_key;
};
struct KeyData {
    InputKey key;
    std::uint32_t shift_state;
    std::uint8_t toggle_state;
};
struct SimpleTextInputEx {
    Status(EFIAPI* reset)(SimpleTextInputEx*, Bool);
    Status(EFIAPI* read_key)(SimpleTextInputEx*, KeyData*);
    Event wait_for_key;
    Status(EFIAPI* set_state)(SimpleTextInputEx*, std::uint8_t*);
    Status(EFIAPI* register_key_notify)(SimpleTextInputEx*, KeyData*, Status(EFIAPI*)(KeyData*),
                                        void**);
    Status(EFIAPI* unregister_key_notify)(SimpleTextInputEx*, void*);
};

// 12.4
struct TextOutputMode {
    std::int32_t max_mode;
    std::int32_t mode;
    std::int32_t attribute;
    std::int32_t cursor_column;
    std::int32_t cursor_row;
    Bool cursor_visible;
};
struct SimpleTextOutput {
    Status(EFIAPI* reset)(SimpleTextOutput*, Bool);
    Status(EFIAPI* output_string)(SimpleTextOutput*, const char16_t*);
    Status(EFIAPI* test_string)(SimpleTextOutput*, const char16_t*);
    Status(EFIAPI* query_mode)(SimpleTextOutput*, std::uint64_t, std::uint64_t*, std::uint64_t*);
    Status(EFIAPI* set_mode)(SimpleTextOutput*, std::uint64_t);
    Status(EFIAPI* set_attribute)(SimpleTextOutput*, std::uint64_t);
    Status(EFIAPI* clear_screen)(SimpleTextOutput*);
    Status(EFIAPI* set_cursor_position)(SimpleTextOutput*, std::uint64_t, std::uint64_t);
    Status(EFIAPI* enable_cursor)(SimpleTextOutput*, Bool);
    TextOutputMode* mode;
};

// 12.8
struct SerialIoMode {
    std::uint32_t control_mask;
    std::uint32_t timeout;  // microseconds
    std::uint64_t baud_rate;
    std::uint32_t receive_fifo_depth;
    std::uint32_t data_bits;
    std::uint32_t parity;
    std::uint32_t stop_bits;
};
struct SerialIo {
    std::uint32_t revision;
    Status(EFIAPI* reset)(SerialIo*);
    Status(EFIAPI* set_attributes)(SerialIo*, std::uint64_t, std::uint32_t, std::uint32_t,
                                   std::uint32_t, std::uint8_t, std::uint32_t);
    Status(EFIAPI* set_control)(SerialIo*, std::uint32_t);
    Status(EFIAPI* get_control)(SerialIo*, std::uint32_t*);
    Status(EFIAPI* write)(SerialIo*, std::uint64_t*, const void*);
    Status(EFIAPI* read)(SerialIo*, std::uint64_t*, void*);
    SerialIoMode* mode;
};

// 13.9
struct BlockIoMedia {
    std::uint32_t media_id;
    Bool removable;
    Bool present;
    Bool logical_partition;
    Bool read_only;
    Bool write_caching;
    std::uint32_t block_size;
    std::uint32_t io_align;
    std::uint64_t last_block;
    std::uint64_t lowest_aligned_lba;
    std::uint32_t logical_blocks_per_physical;
    std::uint32_t optimal_transfer_granularity;
};
struct BlockIo {
    std::uint64_t revision;
    BlockIoMedia* media;
    Status(EFIAPI* reset)(BlockIo*, Bool);
    Status(EFIAPI* read_blocks)(BlockIo*, std::uint32_t, std::uint64_t, std::uint64_t, void*);
    Status(EFIAPI* write_blocks)(BlockIo*, std::uint32_t, std::uint64_t, std::uint64_t,
                                 const void*);
    Status(EFIAPI* flush_blocks)(BlockIo*);
};
// 13.7
struct DiskIo {
    std::uint64_t revision;
    Status(EFIAPI* read_disk)(DiskIo*, std::uint32_t, std::uint64_t, std::uint64_t, void*);
    Status(EFIAPI* write_disk)(DiskIo*, std::uint32_t, std::uint64_t, std::uint64_t, const void*);
};

// 13.5
inline constexpr std::uint64_t file_mode_read = 1;
inline constexpr std::uint64_t file_mode_write = 2;
inline constexpr std::uint64_t file_mode_create = 1ULL << 63;
inline constexpr std::uint64_t file_read_only = 0x01;
inline constexpr std::uint64_t file_directory = 0x10;
struct File {
    std::uint64_t revision;
    Status(EFIAPI* open)(File*, File**, const char16_t*, std::uint64_t, std::uint64_t);
    Status(EFIAPI* close)(File*);
    Status(EFIAPI* remove)(File*);
    Status(EFIAPI* read)(File*, std::uint64_t*, void*);
    Status(EFIAPI* write)(File*, std::uint64_t*, const void*);
    Status(EFIAPI* get_position)(File*, std::uint64_t*);
    Status(EFIAPI* set_position)(File*, std::uint64_t);
    Status(EFIAPI* get_info)(File*, const Guid*, std::uint64_t*, void*);
    Status(EFIAPI* set_info)(File*, const Guid*, std::uint64_t, const void*);
    Status(EFIAPI* flush)(File*);
};
struct SimpleFileSystem {
    std::uint64_t revision;
    Status(EFIAPI* open_volume)(SimpleFileSystem*, File**);
};
struct FileInfo {
    std::uint64_t size;  // of this struct and the name
    std::uint64_t file_size;
    std::uint64_t physical_size;
    Time create_time;
    Time last_access_time;
    Time modification_time;
    std::uint64_t attribute;
    // char16_t name[], zero-terminated
};
static_assert(sizeof(FileInfo) == 80);
struct FileSystemInfo {
    std::uint64_t size;
    Bool read_only;
    std::uint64_t volume_size;
    std::uint64_t free_space;
    std::uint32_t block_size;
    // char16_t label[], zero-terminated, at offset 36
};
inline constexpr std::uint64_t file_system_info_size = 36;

// 13.1, 13.2: the same shape.
struct LoadFile {
    Status(EFIAPI* load_file)(LoadFile*, const DevicePath*, Bool, std::uint64_t*, void*);
};

// 13.12
struct UnicodeCollation {
    std::int64_t(EFIAPI* stri_coll)(UnicodeCollation*, const char16_t*, const char16_t*);
    Bool(EFIAPI* metai_match)(UnicodeCollation*, const char16_t*, const char16_t*);
    void(EFIAPI* str_lwr)(UnicodeCollation*, char16_t*);
    void(EFIAPI* str_upr)(UnicodeCollation*, char16_t*);
    void(EFIAPI* fat_to_str)(UnicodeCollation*, std::uint64_t, const char*, char16_t*);
    Bool(EFIAPI* str_to_fat)(UnicodeCollation*, const char16_t*, std::uint64_t, char*);
    const char* supported_languages;
};

// 10.6
struct DevicePathToText {
    char16_t*(EFIAPI* device_node_to_text)(const DevicePath*, Bool, Bool);
    char16_t*(EFIAPI* device_path_to_text)(const DevicePath*, Bool, Bool);
};

// 37.5
struct Rng {
    Status(EFIAPI* get_info)(Rng*, std::uint64_t*, Guid*);
    Status(EFIAPI* get_rng)(Rng*, const Guid*, std::uint64_t, std::uint8_t*);
};

// 11.1
struct DriverBinding {
    Status(EFIAPI* supported)(DriverBinding*, Handle, DevicePath*);
    Status(EFIAPI* start)(DriverBinding*, Handle, DevicePath*);
    Status(EFIAPI* stop)(DriverBinding*, Handle, std::uint64_t, Handle*);
    std::uint32_t version;
    Handle image;
    Handle driver_binding_handle;
};

// 4.6.4
struct MemoryAttributesTable {
    std::uint32_t version;
    std::uint32_t number_of_entries;
    std::uint32_t descriptor_size;
    std::uint32_t flags;
    MemoryDescriptor entries[2];
};
// 4.6.2
struct RtPropertiesTable {
    std::uint16_t version;
    std::uint16_t length;
    std::uint32_t supported;
};

}  // namespace masu::firmware::efi

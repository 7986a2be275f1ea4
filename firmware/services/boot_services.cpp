#include "firmware/services/boot_services.hpp"

#include "firmware/crc32.hpp"
#include "firmware/platform/milestone.hpp"
#include "firmware/protocols/disks.hpp"
#include "firmware/runtime/runtime.hpp"
#include "firmware/services/events.hpp"
#include "firmware/services/handles.hpp"
#include "firmware/services/images.hpp"
#include "firmware/services/memory.hpp"

namespace masu::firmware {

using efi::Status;

namespace {

constinit efi::BootServices table = {};
constinit std::uint64_t monotonic = 0;

Status EFIAPI efi_install_configuration_table(const efi::Guid* guid, void* entry) {
    if (guid == nullptr)
        return Status::InvalidParameter;
    const auto status = install_configuration_table(*guid, entry);
    if (status == Status::Success)
        signal_group(*guid);
    return status;
}

Status EFIAPI efi_next_monotonic(std::uint64_t* count) {
    if (count == nullptr)
        return Status::InvalidParameter;
    *count = ++monotonic;
    return Status::Success;
}

Status EFIAPI efi_crc32(const void* data, std::uint64_t size, std::uint32_t* result) {
    if (data == nullptr || size == 0 || result == nullptr)
        return Status::InvalidParameter;
    *result = crc32({static_cast<const std::byte*>(data), static_cast<std::size_t>(size)});
    return Status::Success;
}

void EFIAPI efi_copy_mem(void* to, const void* from, std::uint64_t size) {
    std::memmove(to, from, size);
}

void EFIAPI efi_set_mem(void* to, std::uint64_t size, std::uint8_t value) {
    std::memset(to, value, size);
}

// 7.4.6
Status EFIAPI efi_exit_boot_services(efi::Handle image, std::uint64_t key) {
    if (find_protocol(image, efi::guid::loaded_image) == nullptr)
        return Status::InvalidParameter;
    static constinit bool announced = false;
    if (!announced) {
        announced = true;
        signal_group(efi::guid::group_before_exit_boot_services);
    }
    if (key != memory_map().key())
        return Status::InvalidParameter;
    stop_timers();
    signal_group(efi::guid::group_exit_boot_services);
    stop_disks();
    leave_boot_services();
    table = {};
    milestone(FirmwareEvent::KernelHandover);
    return Status::Success;
}

}  // namespace

void init_boot_services() noexcept {
    table.header = {efi::boot_services_signature, efi::uefi_revision, sizeof table, 0, 0};
    fill_memory_services(table);
    fill_event_services(table);
    fill_handle_services(table);
    fill_open_services(table);
    fill_image_services(table);
    table.install_configuration_table = efi_install_configuration_table;
    table.exit_boot_services = efi_exit_boot_services;
    table.get_next_monotonic_count = efi_next_monotonic;
    table.calculate_crc32 = efi_crc32;
    table.copy_mem = efi_copy_mem;
    table.set_mem = efi_set_mem;
    update_checksum(table.header);
    system_table().boot_services = &table;
    update_checksum(system_table().header);
}

}  // namespace masu::firmware

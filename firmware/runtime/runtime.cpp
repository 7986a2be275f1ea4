#include "firmware/runtime/runtime.hpp"

#include "firmware/crc32.hpp"
#include "firmware/platform/cpu.hpp"

namespace masu::firmware {

using efi::Guid;
using efi::ResetType;
using efi::Status;

namespace {

constexpr std::uint64_t max_tables = 32;
constinit char16_t vendor[] = u"Masu";
constinit efi::ConfigurationTable configuration[max_tables] = {};
constinit efi::SystemTable system = {};
constinit efi::RuntimeServices services = {};
constinit bool runtime_only = false;
constinit bool is_virtual = false;
constinit std::uint32_t high_count = 0;

struct PowerPorts {
    std::uint16_t sleep;
    std::uint16_t reset;
    std::uint8_t reset_value;
    std::uint8_t sleep_type;
};
constinit PowerPorts power = {};

// The map that SetVirtualAddressMap was given, while it works on it.
struct VirtualMap {
    const efi::MemoryDescriptor* first = nullptr;
    std::uint64_t count = 0;
    std::uint64_t stride = 0;
};
constinit VirtualMap virtual_map = {};

const efi::MemoryDescriptor& descriptor(std::uint64_t index) noexcept {
    return *reinterpret_cast<const efi::MemoryDescriptor*>(
        reinterpret_cast<const std::byte*>(virtual_map.first) + index * virtual_map.stride);
}

bool translate(std::uint64_t& address) noexcept {
    for (std::uint64_t i = 0; i < virtual_map.count; ++i) {
        const auto& d = descriptor(i);
        if ((d.attribute & efi::memory_runtime) != 0 && address >= d.physical_start &&
            (address - d.physical_start) / efi::page_size < d.page_count) {
            address += d.virtual_start - d.physical_start;
            return true;
        }
    }
    return false;
}

template <class Pointer>
void convert(Pointer& pointer) noexcept {
    auto address = reinterpret_cast<std::uint64_t>(pointer);
    if (address != 0 && translate(address))
        pointer = reinterpret_cast<Pointer>(address);
}

Status EFIAPI efi_convert_pointer(std::uint64_t disposition, void** address) {
    constexpr std::uint64_t optional_pointer = 1;
    if (address == nullptr)
        return Status::InvalidParameter;
    if (virtual_map.first == nullptr)
        return Status::Unsupported;
    if (*address == nullptr)
        return (disposition & optional_pointer) != 0 ? Status::Success : Status::InvalidParameter;
    auto value = reinterpret_cast<std::uint64_t>(*address);
    if (!translate(value))
        return Status::NotFound;
    *address = reinterpret_cast<void*>(value);
    return Status::Success;
}

// All of the firmware that stays is one region, and its code finds its data relative to itself; so
// the pointers in the tables are all there is to change.
Status EFIAPI efi_set_virtual_address_map(std::uint64_t size, std::uint64_t descriptor_size,
                                          std::uint32_t version, efi::MemoryDescriptor* map) {
    if (!runtime_only || is_virtual)
        return Status::Unsupported;
    if (map == nullptr || version != efi::memory_descriptor_version ||
        descriptor_size < sizeof(efi::MemoryDescriptor))
        return Status::InvalidParameter;
    virtual_map = {map, size / descriptor_size, descriptor_size};
    auto own = reinterpret_cast<std::uint64_t>(&services);
    if (!translate(own)) {
        virtual_map = {};
        return Status::NotFound;
    }
    is_virtual = true;
    convert(services.get_time);
    convert(services.set_time);
    convert(services.get_wakeup_time);
    convert(services.set_wakeup_time);
    convert(services.set_virtual_address_map);
    convert(services.convert_pointer);
    convert(services.get_variable);
    convert(services.get_next_variable_name);
    convert(services.set_variable);
    convert(services.get_next_high_monotonic_count);
    convert(services.reset_system);
    convert(services.update_capsule);
    convert(services.query_capsule_capabilities);
    convert(services.query_variable_info);
    update_checksum(services.header);
    convert(system.firmware_vendor);
    convert(system.configuration_table);
    convert(system.runtime_services);
    update_checksum(system.header);
    virtual_map = {};
    return Status::Success;
}

Status EFIAPI efi_next_high_count(std::uint32_t* count) {
    if (count == nullptr)
        return Status::InvalidParameter;
    *count = ++high_count;
    return Status::Success;
}

void EFIAPI efi_reset_system(ResetType type, Status, std::uint64_t, const void*) {
    reset(type);
}

Status EFIAPI efi_update_capsule(void**, std::uint64_t, efi::PhysicalAddress) {
    return Status::Unsupported;
}

Status EFIAPI efi_query_capsule(void**, std::uint64_t, std::uint64_t*, ResetType*) {
    return Status::Unsupported;
}

}  // namespace

void update_checksum(efi::TableHeader& header) noexcept {
    header.crc32 = 0;
    header.crc32 =
        crc32({reinterpret_cast<const std::byte*>(&header), header.header_size});
}

void init_runtime(const BootInfo& info) noexcept {
    power = {info.sleep_port, info.reset_port, info.reset_value, info.sleep_type_s5};
    init_time(info.rtc_port);
    services.header = {efi::runtime_services_signature, efi::uefi_revision, sizeof services, 0, 0};
    services.set_virtual_address_map = efi_set_virtual_address_map;
    services.convert_pointer = efi_convert_pointer;
    services.get_next_high_monotonic_count = efi_next_high_count;
    services.reset_system = efi_reset_system;
    services.update_capsule = efi_update_capsule;
    services.query_capsule_capabilities = efi_query_capsule;
    fill_time_services(services);
    fill_variable_services(services);
    update_checksum(services.header);
    system.header = {efi::system_table_signature, efi::uefi_revision, sizeof system, 0, 0};
    system.firmware_vendor = vendor;
    system.firmware_revision = boot_info_version << 16;
    system.runtime_services = &services;
    system.configuration_table = configuration;
    update_checksum(system.header);
}

efi::SystemTable& system_table() noexcept {
    return system;
}

efi::RuntimeServices& runtime_services() noexcept {
    return services;
}

void leave_boot_services() noexcept {
    runtime_only = true;
    system.console_in_handle = nullptr;
    system.con_in = nullptr;
    system.console_out_handle = nullptr;
    system.con_out = nullptr;
    system.standard_error_handle = nullptr;
    system.std_err = nullptr;
    system.boot_services = nullptr;
    update_checksum(system.header);
}

bool at_runtime() noexcept {
    return runtime_only;
}

void reset(ResetType type) noexcept {
    constexpr unsigned sleep_type_shift = 2;
    constexpr unsigned sleep_enable = 1U << 5;
    if (type == ResetType::Shutdown)
        cpu::out8(power.sleep, static_cast<std::uint8_t>(power.sleep_type << sleep_type_shift |
                                                         sleep_enable));
    else
        cpu::out8(power.reset, power.reset_value);
    cpu::halt();
}

Status install_configuration_table(const Guid& guid, void* table) noexcept {
    auto& count = system.configuration_table_count;
    std::uint64_t at = 0;
    while (at < count && !(configuration[at].guid == guid))
        ++at;
    if (table == nullptr) {
        if (at == count)
            return Status::NotFound;
        for (--count; at < count; ++at)
            configuration[at] = configuration[at + 1];
    } else {
        if (at == max_tables)
            return Status::OutOfResources;
        configuration[at] = {guid, table};
        count += at == count ? 1 : 0;
    }
    update_checksum(system.header);
    return Status::Success;
}

}  // namespace masu::firmware

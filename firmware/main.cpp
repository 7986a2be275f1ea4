// The firmware from its entry to the first boot loader.
#include <iterator>

#include "firmware/boot/manager.hpp"
#include "firmware/boot_info.hpp"
#include "firmware/platform/clock.hpp"
#include "firmware/platform/cpu.hpp"
#include "firmware/platform/milestone.hpp"
#include "firmware/platform/processor.hpp"
#include "firmware/platform/say.hpp"
#include "firmware/platform/serial.hpp"
#include "firmware/protocols/disks.hpp"
#include "firmware/protocols/install.hpp"
#include "firmware/runtime/runtime.hpp"
#include "firmware/services/boot_services.hpp"
#include "firmware/services/memory.hpp"
#include "firmware/virtio/pci.hpp"

// firmware.ld
extern "C" {
extern const char __image_start[];
extern const char __runtime_start[];
extern const char __runtime_data[];
extern const char __runtime_end[];
extern const char __memory_end[];
}

namespace masu::firmware {
namespace {

using efi::MemoryType;
using efi::page_size;

[[noreturn]] void give_up(std::string_view why) noexcept {
    say(why);
    milestone(FirmwareEvent::NothingToBoot);
    cpu::halt();
}

std::uint64_t address_of(const char* symbol) noexcept {
    return reinterpret_cast<std::uint64_t>(symbol);
}

MemoryType type_of(RangeType type) noexcept {
    switch (type) {
        case RangeType::Ram:
            return MemoryType::Conventional;
        case RangeType::AcpiTables:
            return MemoryType::AcpiReclaim;
        case RangeType::Reserved:
            break;
    }
    return MemoryType::Reserved;
}

bool reserve(const char* start, const char* end, MemoryType type) noexcept {
    return start == end || memory_map().reserve(address_of(start),
                                                efi::pages_for(address_of(end) - address_of(start)),
                                                type);
}

bool set_up_memory(const BootInfo& info) noexcept {
    // The monitor's descriptor table, page tables and this information.
    constexpr std::uint64_t monitors_end = 0x10000;
    auto& map = memory_map();
    for (std::uint32_t i = 0; i < info.range_count && i < max_memory_ranges; ++i) {
        const auto& range = info.ranges[i];
        // A page that is RAM in part only is none.
        const std::uint64_t start = (range.start + page_size - 1) & ~(page_size - 1);
        const std::uint64_t end = (range.start + range.size) & ~(page_size - 1);
        if (end > start && !map.add({start, (end - start) / page_size, type_of(range.type),
                                     efi::memory_wb}))
            return false;
    }
    return map.reserve(0, monitors_end / page_size, MemoryType::BootServicesData) &&
           reserve(__image_start, __runtime_start, MemoryType::BootServicesCode) &&
           reserve(__runtime_start, __runtime_end, MemoryType::RuntimeServicesCode) &&
           reserve(__runtime_end, __memory_end, MemoryType::BootServicesData);
}

// Linux protects code and data of the runtime services by this (4.6.4). Both are parts of one
// region, and of its type.
bool install_memory_attributes() noexcept {
    auto* table = static_cast<efi::MemoryAttributesTable*>(
        allocate_pool(MemoryType::BootServicesData, sizeof(efi::MemoryAttributesTable)));
    if (table == nullptr)
        return false;
    const auto code = address_of(__runtime_start);
    const auto data = address_of(__runtime_data);
    const auto end = address_of(__runtime_end);
    *table = {.version = 1,
              .number_of_entries = 2,
              .descriptor_size = sizeof(efi::MemoryDescriptor),
              .flags = 0,
              .entries = {{static_cast<std::uint32_t>(MemoryType::RuntimeServicesCode), 0, code, 0,
                           (data - code) / page_size, efi::memory_runtime | efi::memory_ro},
                          {static_cast<std::uint32_t>(MemoryType::RuntimeServicesCode), 0, data, 0,
                           (end - data) / page_size, efi::memory_runtime | efi::memory_xp}}};
    return install_configuration_table(efi::guid::memory_attributes_table, table) ==
           efi::Status::Success;
}

bool install_tables(const BootInfo& info) noexcept {
    const auto install = [](const efi::Guid& guid, std::uint64_t address) {
        return address == 0 || install_configuration_table(guid, reinterpret_cast<void*>(address)) ==
                                   efi::Status::Success;
    };
    return install(efi::guid::acpi20_table, info.rsdp) &&
           install(efi::guid::smbios3_table, info.smbios) && install_memory_attributes();
}

bool set_variables() noexcept {
    constexpr std::uint32_t attributes = efi::variable_boot_access | efi::variable_runtime_access;
    constexpr std::byte off{0};
    constexpr std::byte on{1};
    constexpr std::byte supported[8] = {};
    const auto set = [](const char16_t* name, std::span<const std::byte> data) {
        return set_variable(name, efi::guid::global_variable, attributes, data) ==
               efi::Status::Success;
    };
    return set(u"SecureBoot", {&off, 1}) && set(u"SetupMode", {&on, 1}) &&
           set(u"OsIndicationsSupported", supported);
}

}  // namespace
}  // namespace masu::firmware

extern "C" [[noreturn]] void masu_firmware_main(const masu::firmware::BootInfo* given) {
    using namespace masu::firmware;
    const BootInfo info = *given;
    serial::init(info.com1_port);
    if (info.magic != boot_info_magic || info.version != boot_info_version ||
        info.size != sizeof info)
        give_up("the monitor and the firmware are of different versions");
    init_milestones(info.milestone_port);
    milestone(FirmwareEvent::Entry);
    clock::init(info.tsc_khz);
    init_runtime(info);
    if (!set_up_memory(info))
        give_up("the monitor's memory map is unusable");
    init_boot_services();
    if (!set_up_processor() || !install_tables(info) || !set_variables() || !install_console() ||
        !install_text_protocols())
        give_up("too little memory for the firmware");
    virtio::init_pci(info.ecam);
    install_rng();
    boot(start_disks(), info);
    give_up("nothing more to try: give a disk with a boot loader or a Linux installation");
}

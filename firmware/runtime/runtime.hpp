// Runtime services (UEFI 8): what stays after ExitBootServices. The sources of this folder are
// linked into pages of their own and use nothing of the rest.
#pragma once

#include <span>

#include "firmware/boot_info.hpp"
#include "firmware/efi/protocols.hpp"

namespace masu::firmware {

// Once, at the start.
void init_runtime(const BootInfo& info) noexcept;
[[nodiscard]] efi::SystemTable& system_table() noexcept;
[[nodiscard]] efi::RuntimeServices& runtime_services() noexcept;
void update_checksum(efi::TableHeader& header) noexcept;
// The system table without what ends with boot services; no more boot services from here on.
void leave_boot_services() noexcept;
[[nodiscard]] bool at_runtime() noexcept;

[[noreturn]] void reset(efi::ResetType type) noexcept;

// Null removes. NotFound: nothing to remove; OutOfResources: the table is full.
efi::Status install_configuration_table(const efi::Guid& guid, void* table) noexcept;

efi::Status set_variable(const char16_t* name, const efi::Guid& vendor, std::uint32_t attributes,
                         std::span<const std::byte> data) noexcept;

// Variables whose value follows from the firmware itself: writes are refused.
void fill_variable_services(efi::RuntimeServices& table) noexcept;
void fill_time_services(efi::RuntimeServices& table) noexcept;
void init_time(std::uint16_t rtc_port) noexcept;

}  // namespace masu::firmware

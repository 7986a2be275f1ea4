// The handle database: which protocols are on which handle, and who has opened them (UEFI 7.3).
#pragma once

#include "firmware/efi/protocols.hpp"

namespace masu::firmware {

// A new handle when `handle` is null.
efi::Status install_protocol(efi::Handle& handle, const efi::Guid& protocol,
                             void* interface) noexcept;
efi::Status uninstall_protocol(efi::Handle handle, const efi::Guid& protocol,
                               void* interface) noexcept;
[[nodiscard]] bool is_handle(efi::Handle handle) noexcept;
// nullptr when the handle has no such protocol, or is none.
[[nodiscard]] void* find_protocol(efi::Handle handle, const efi::Guid& protocol) noexcept;
template <class T>
[[nodiscard]] T* find_interface(efi::Handle handle, const efi::Guid& protocol) noexcept {
    return static_cast<T*>(find_protocol(handle, protocol));
}
// Handles in order of creation; nullptr: the first, or no more.
[[nodiscard]] efi::Handle next_handle(efi::Handle previous) noexcept;
[[nodiscard]] efi::Handle next_handle_with(efi::Handle previous,
                                           const efi::Guid& protocol) noexcept;
// LocateDevicePath(): the handle whose path is the longest head of `path`, which is moved behind it.
[[nodiscard]] efi::Status locate_device_path(const efi::Guid& protocol,
                                             const efi::DevicePath*& path,
                                             efi::Handle& handle) noexcept;
// Drops every record that `agent` has opened something.
void close_all_of(efi::Handle agent) noexcept;

void fill_handle_services(efi::BootServices& table) noexcept;
void fill_open_services(efi::BootServices& table) noexcept;

}  // namespace masu::firmware

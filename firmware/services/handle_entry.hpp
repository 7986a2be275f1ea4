// The records behind handles; for the handle services only.
#pragma once

#include "firmware/services/handles.hpp"

namespace masu::firmware {

struct OpenRecord {
    OpenRecord* next = nullptr;
    efi::Handle agent = nullptr;
    efi::Handle controller = nullptr;
    std::uint32_t attributes = 0;
    std::uint32_t count = 0;
};

struct ProtocolEntry {
    ProtocolEntry* next = nullptr;
    efi::Guid guid{};
    void* interface = nullptr;
    OpenRecord* opens = nullptr;
};

struct HandleEntry {
    HandleEntry* next = nullptr;
    ProtocolEntry* protocols = nullptr;
};

// nullptr when it is no handle.
[[nodiscard]] HandleEntry* find_handle(efi::Handle handle) noexcept;
[[nodiscard]] ProtocolEntry* find_entry(efi::Handle handle, const efi::Guid& protocol) noexcept;
// Asks the drivers that hold a protocol of this handle open to stop; true when none holds it after.
[[nodiscard]] bool disconnect_users(efi::Handle handle, ProtocolEntry& protocol) noexcept;

}  // namespace masu::firmware

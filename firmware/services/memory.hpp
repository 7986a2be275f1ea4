// Boot services for memory: pages and pool (UEFI 7.2).
#pragma once

#include <new>
#include <utility>

#include "firmware/boot_info.hpp"
#include "firmware/services/memory_map.hpp"

namespace masu::firmware {

[[nodiscard]] MemoryMap& memory_map() noexcept;

// Memory in 16-byte alignment; nullptr when there is none. Not zeroed.
[[nodiscard]] void* allocate_pool(efi::MemoryType type, std::uint64_t size) noexcept;
// InvalidParameter for what allocate_pool() did not give.
efi::Status free_pool(void* memory) noexcept;

// The firmware's own memory (BootServicesData), never given back unless by free_pool().
template <class T, class... Args>
[[nodiscard]] T* make(Args&&... args) noexcept {
    void* at = allocate_pool(efi::MemoryType::BootServicesData, sizeof(T));
    return at == nullptr ? nullptr : ::new (at) T{std::forward<Args>(args)...};
}

// Whole pages of BootServicesData; nullptr when there are none.
[[nodiscard]] std::byte* allocate_data_pages(std::uint64_t pages) noexcept;
void free_data_pages(const void* memory, std::uint64_t pages) noexcept;

void fill_memory_services(efi::BootServices& table) noexcept;

}  // namespace masu::firmware

#include "firmware/services/memory.hpp"

#include "firmware/services/events.hpp"

namespace masu::firmware {

using efi::MemoryType;
using efi::page_size;
using efi::Status;

namespace {

constinit MemoryMap map;

// In front of every piece of pool.
struct PoolHead {
    std::uint32_t magic;
    std::uint32_t type;
    std::uint64_t pages;  // 0: a piece of a page, of size class `size_class`
    PoolHead* next;       // in the list of free ones
    std::uint64_t size_class;
};
static_assert(sizeof(PoolHead) == 32);
constexpr std::uint32_t pool_in_use = 0x6c6f'6f70;
constexpr std::uint32_t pool_free = 0x6565'7266;

// Pieces of 64, 128, ... 2048 bytes, head included; anything larger is whole pages.
constexpr std::uint64_t smallest_piece = 64;
constexpr unsigned class_count = 6;
constexpr std::uint64_t largest_piece = smallest_piece << (class_count - 1);
constexpr auto pooled_types = static_cast<unsigned>(MemoryType::End);
constinit PoolHead* free_lists[pooled_types][class_count] = {};

template <class T>
T* pointer(std::uint64_t address) noexcept {
    return reinterpret_cast<T*>(address);
}

PoolHead* whole_pages(MemoryType type, std::uint64_t size) noexcept {
    const std::uint64_t pages = efi::pages_for(size);
    std::uint64_t address = 0;
    if (map.allocate(efi::AllocateType::AnyPages, type, pages, address) != Status::Success)
        return nullptr;
    auto* head = pointer<PoolHead>(address);
    *head = {pool_in_use, static_cast<std::uint32_t>(type), pages, nullptr, 0};
    return head;
}

PoolHead* piece(MemoryType type, unsigned size_class) noexcept {
    auto*& list = free_lists[static_cast<unsigned>(type)][size_class];
    if (list == nullptr) {
        std::uint64_t address = 0;
        if (map.allocate(efi::AllocateType::AnyPages, type, 1, address) != Status::Success)
            return nullptr;
        const std::uint64_t size = smallest_piece << size_class;
        for (std::uint64_t offset = 0; offset < page_size; offset += size) {
            auto* head = pointer<PoolHead>(address + offset);
            *head = {pool_free, static_cast<std::uint32_t>(type), 0, list, size_class};
            list = head;
        }
    }
    auto* head = list;
    list = head->next;
    head->magic = pool_in_use;
    head->next = nullptr;
    return head;
}

Status EFIAPI efi_allocate_pages(efi::AllocateType kind, MemoryType type, std::uint64_t pages,
                                 efi::PhysicalAddress* address) {
    if (address == nullptr)
        return Status::InvalidParameter;
    const auto status = map.allocate(kind, type, pages, *address);
    if (status == Status::Success)
        signal_group(efi::guid::group_memory_map_change);
    return status;
}

Status EFIAPI efi_free_pages(efi::PhysicalAddress address, std::uint64_t pages) {
    const auto status = map.free(address, pages);
    if (status == Status::Success)
        signal_group(efi::guid::group_memory_map_change);
    return status;
}

Status EFIAPI efi_get_memory_map(std::uint64_t* size, efi::MemoryDescriptor* to,
                                 std::uint64_t* key, std::uint64_t* descriptor_size,
                                 std::uint32_t* version) {
    if (size == nullptr)
        return Status::InvalidParameter;
    const auto regions = map.regions();
    const std::uint64_t needed = regions.size() * sizeof(efi::MemoryDescriptor);
    if (descriptor_size != nullptr)
        *descriptor_size = sizeof(efi::MemoryDescriptor);
    if (version != nullptr)
        *version = efi::memory_descriptor_version;
    if (*size < needed) {
        *size = needed;
        return Status::BufferTooSmall;
    }
    if (to == nullptr || key == nullptr)
        return Status::InvalidParameter;
    for (const auto& region : regions)
        *to++ = {static_cast<std::uint32_t>(region.type), 0, region.start, 0, region.pages,
                 region.attribute};
    *size = needed;
    *key = map.key();
    return Status::Success;
}

Status EFIAPI efi_allocate_pool(MemoryType type, std::uint64_t size, void** memory) {
    if (memory == nullptr)
        return Status::InvalidParameter;
    const auto number = static_cast<std::uint32_t>(type);
    if (type == MemoryType::Conventional || type == MemoryType::Persistent ||
        type == MemoryType::Unaccepted || (number >= pooled_types && number < 0x7000'0000))
        return Status::InvalidParameter;
    *memory = allocate_pool(type, size);
    return *memory == nullptr ? Status::OutOfResources : Status::Success;
}

Status EFIAPI efi_free_pool(void* memory) {
    return free_pool(memory);
}

}  // namespace

MemoryMap& memory_map() noexcept {
    return map;
}

void* allocate_pool(MemoryType type, std::uint64_t size) noexcept {
    if (size > 1ULL << 40)
        return nullptr;
    size += sizeof(PoolHead);
    PoolHead* head = nullptr;
    if (size > largest_piece || static_cast<std::uint32_t>(type) >= pooled_types) {
        head = whole_pages(type, size);
    } else {
        unsigned size_class = 0;
        while (smallest_piece << size_class < size)
            ++size_class;
        head = piece(type, size_class);
    }
    return head == nullptr ? nullptr : head + 1;
}

Status free_pool(void* memory) noexcept {
    const auto address = reinterpret_cast<std::uint64_t>(memory);
    const auto* region = map.find(address);
    if (address % sizeof(PoolHead) != 0 || address < page_size || region == nullptr ||
        region->type == MemoryType::Conventional || region->type == MemoryType::Mmio)
        return Status::InvalidParameter;
    auto* head = static_cast<PoolHead*>(memory) - 1;
    if (head->magic != pool_in_use)
        return Status::InvalidParameter;
    head->magic = pool_free;
    if (head->pages != 0)
        return map.free(reinterpret_cast<std::uint64_t>(head), head->pages);
    if (head->type >= pooled_types || head->size_class >= class_count)
        return Status::InvalidParameter;
    auto*& list = free_lists[head->type][head->size_class];
    head->next = list;
    list = head;
    return Status::Success;
}

std::byte* allocate_data_pages(std::uint64_t pages) noexcept {
    std::uint64_t address = 0;
    const auto status = map.allocate(efi::AllocateType::AnyPages, MemoryType::BootServicesData,
                                     pages, address);
    return status == Status::Success ? pointer<std::byte>(address) : nullptr;
}

void free_data_pages(const void* memory, std::uint64_t pages) noexcept {
    (void)map.free(reinterpret_cast<std::uint64_t>(memory), pages);
}

void fill_memory_services(efi::BootServices& table) noexcept {
    table.allocate_pages = efi_allocate_pages;
    table.free_pages = efi_free_pages;
    table.get_memory_map = efi_get_memory_map;
    table.allocate_pool = efi_allocate_pool;
    table.free_pool = efi_free_pool;
}

}  // namespace masu::firmware

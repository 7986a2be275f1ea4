// AllocatePages, FreePages, AllocatePool, FreePool, GetMemoryMap, CopyMem, SetMem, CalculateCrc32.
#include "guest/efi_test/app.hpp"

namespace efi_test {
namespace {

constexpr std::uint64_t page = 4096;
alignas(8) std::byte map_buffer[65536];

const efi::MemoryDescriptor* find(std::uint64_t address, std::uint64_t size, std::uint64_t stride) {
    for (std::uint64_t at = 0; at + stride <= size; at += stride) {
        const auto* d = reinterpret_cast<const efi::MemoryDescriptor*>(map_buffer + at);
        if (address >= d->physical_start && (address - d->physical_start) / page < d->page_count)
            return d;
    }
    return nullptr;
}

// What the firmware itself holds before a kernel runs.
std::uint64_t firmware_pages(std::uint64_t size, std::uint64_t stride) {
    std::uint64_t pages = 0;
    for (std::uint64_t at = 0; at + stride <= size; at += stride) {
        const auto* d = reinterpret_cast<const efi::MemoryDescriptor*>(map_buffer + at);
        if (d->type >= static_cast<std::uint32_t>(efi::MemoryType::BootServicesCode) &&
            d->type <= static_cast<std::uint32_t>(efi::MemoryType::RuntimeServicesData))
            pages += d->page_count;
    }
    return pages;
}

void test_map() {
    std::uint64_t size = 0;
    std::uint64_t key = 0;
    std::uint64_t stride = 0;
    std::uint32_t version = 0;
    CHECK(bs->get_memory_map(nullptr, nullptr, &key, &stride, &version) ==
          Status::InvalidParameter);
    CHECK(bs->get_memory_map(&size, nullptr, &key, &stride, &version) == Status::BufferTooSmall);
    CHECK(size > 0 && stride >= sizeof(efi::MemoryDescriptor) && version == 1);
    size = sizeof map_buffer;
    auto* map = reinterpret_cast<efi::MemoryDescriptor*>(map_buffer);
    CHECK(bs->get_memory_map(&size, map, &key, &stride, &version) == Status::Success);
    std::uint64_t end = 0;
    bool ascending = true;
    for (std::uint64_t at = 0; at + stride <= size; at += stride) {
        const auto* d = reinterpret_cast<const efi::MemoryDescriptor*>(map_buffer + at);
        ascending = ascending && d->physical_start >= end && d->page_count > 0;
        end = d->physical_start + d->page_count * page;
    }
    CHECK(ascending);
    CHECK(firmware_pages(size, stride) * page <= 16 << 20);
    const auto own = reinterpret_cast<std::uint64_t>(&test_map);
    const auto* code = find(own, size, stride);
    CHECK(code != nullptr && code->type == static_cast<std::uint32_t>(efi::MemoryType::LoaderCode));
    const auto* runtime = find(reinterpret_cast<std::uint64_t>(rt->get_time), size, stride);
    CHECK(runtime != nullptr &&
          runtime->type == static_cast<std::uint32_t>(efi::MemoryType::RuntimeServicesCode) &&
          (runtime->attribute & efi::memory_runtime) != 0);
    // The key changes with the map.
    efi::PhysicalAddress address = 0;
    CHECK(bs->allocate_pages(efi::AllocateType::AnyPages, efi::MemoryType::LoaderData, 3,
                             &address) == Status::Success);
    std::uint64_t other_key = 0;
    size = sizeof map_buffer;
    CHECK(bs->get_memory_map(&size, map, &other_key, &stride, &version) == Status::Success);
    CHECK(other_key != key);
    CHECK(bs->free_pages(address, 3) == Status::Success);
}

void test_pages() {
    efi::PhysicalAddress address = 0;
    const auto any = efi::AllocateType::AnyPages;
    const auto data = efi::MemoryType::LoaderData;
    CHECK(bs->allocate_pages(any, data, 1, nullptr) == Status::InvalidParameter);
    CHECK(bs->allocate_pages(any, efi::MemoryType::Conventional, 1, &address) ==
          Status::InvalidParameter);
    CHECK(bs->allocate_pages(static_cast<efi::AllocateType>(7), data, 1, &address) ==
          Status::InvalidParameter);
    CHECK(bs->allocate_pages(any, data, 1ULL << 39, &address) == Status::OutOfResources);
    address = 0x200'0000;
    CHECK(bs->allocate_pages(efi::AllocateType::MaxAddress, data, 16, &address) == Status::Success);
    CHECK(address % page == 0 && address + 16 * page <= 0x200'0001);
    *reinterpret_cast<volatile std::uint64_t*>(address) = 0x1234;
    auto again = address;
    CHECK(bs->allocate_pages(efi::AllocateType::Address, data, 1, &again) == Status::NotFound);
    CHECK(bs->free_pages(address + 1, 1) == Status::InvalidParameter);
    CHECK(bs->free_pages(address, 16) == Status::Success);
    CHECK(bs->free_pages(address, 16) == Status::NotFound);
    CHECK(bs->allocate_pages(efi::AllocateType::Address, data, 16, &address) == Status::Success);
    // A part of it, from the middle.
    CHECK(bs->free_pages(address + 4 * page, 4) == Status::Success);
    CHECK(bs->free_pages(address, 4) == Status::Success);
    CHECK(bs->free_pages(address + 8 * page, 8) == Status::Success);
    auto odd = address + 1;
    CHECK(bs->allocate_pages(efi::AllocateType::Address, data, 1, &odd) ==
          Status::InvalidParameter);
}

void test_pool() {
    void* memory = nullptr;
    CHECK(bs->allocate_pool(efi::MemoryType::LoaderData, 100, nullptr) == Status::InvalidParameter);
    CHECK(bs->allocate_pool(efi::MemoryType::Conventional, 100, &memory) ==
          Status::InvalidParameter);
    CHECK(bs->allocate_pool(efi::MemoryType::LoaderData, 1ULL << 50, &memory) ==
          Status::OutOfResources);
    void* pieces[24] = {};
    std::uint64_t size = 1;
    for (auto*& piece : pieces) {
        CHECK(bs->allocate_pool(efi::MemoryType::LoaderData, size, &piece) == Status::Success);
        CHECK(reinterpret_cast<std::uint64_t>(piece) % 8 == 0);
        bs->set_mem(piece, size, static_cast<std::uint8_t>(size));
        size = size * 3 / 2 + 1;
    }
    size = 1;
    for (auto* piece : pieces) {
        const auto* bytes = static_cast<const std::uint8_t*>(piece);
        CHECK(bytes[0] == static_cast<std::uint8_t>(size) &&
              bytes[size - 1] == static_cast<std::uint8_t>(size));
        CHECK(bs->free_pool(piece) == Status::Success);
        size = size * 3 / 2 + 1;
    }
    CHECK(bs->free_pool(nullptr) == Status::InvalidParameter);
    CHECK(bs->free_pool(pieces[0]) == Status::InvalidParameter);
}

void test_bytes() {
    std::uint8_t text[] = "123456789";
    std::uint32_t crc = 0;
    CHECK(bs->calculate_crc32(text, 9, &crc) == Status::Success && crc == 0xcbf4'3926);
    CHECK(bs->calculate_crc32(nullptr, 9, &crc) == Status::InvalidParameter);
    CHECK(bs->calculate_crc32(text, 0, &crc) == Status::InvalidParameter);
    CHECK(bs->calculate_crc32(text, 9, nullptr) == Status::InvalidParameter);
    bs->copy_mem(text + 1, text, 8);  // overlapping, upwards
    CHECK(text[0] == '1' && text[1] == '1' && text[8] == '8');
    bs->copy_mem(text, text + 1, 8);  // and downwards
    CHECK(text[0] == '1' && text[1] == '2' && text[7] == '8');
    bs->set_mem(text, 3, 'x');
    CHECK(text[2] == 'x' && text[3] == '4');
}

}  // namespace

void test_memory() {
    test_map();
    test_pages();
    test_pool();
    test_bytes();
}

}  // namespace efi_test

// Which page of physical memory is what: the ledger behind AllocatePages and GetMemoryMap.
#pragma once

#include <cstdint>
#include <span>

#include "firmware/efi/types.hpp"

namespace masu::firmware {

struct Region {
    std::uint64_t start;  // page-aligned
    std::uint64_t pages;
    efi::MemoryType type;
    std::uint64_t attribute;
    [[nodiscard]] std::uint64_t end() const noexcept { return start + pages * efi::page_size; }
};

// Ascending, not overlapping; neighbours of one kind are one region.
class MemoryMap {
  public:
    static constexpr std::size_t max_regions = 2048;

    // Memory that exists. False when it overlaps something, or the ledger is full.
    [[nodiscard]] bool add(const Region& region) noexcept;

    // A part of one region becomes of another type. False when it lies in no one region.
    [[nodiscard]] bool reserve(std::uint64_t start, std::uint64_t pages,
                               efi::MemoryType type) noexcept;

    // 7.2, EFI_BOOT_SERVICES.AllocatePages(). AnyPages takes the highest place below 4 GiB, and
    // above only when there is none, since loaders hand 32-bit addresses to kernels.
    [[nodiscard]] efi::Status allocate(efi::AllocateType kind, efi::MemoryType type,
                                       std::uint64_t pages, std::uint64_t& address) noexcept;
    [[nodiscard]] efi::Status free(std::uint64_t address, std::uint64_t pages) noexcept;

    [[nodiscard]] std::span<const Region> regions() const noexcept { return {regions_, count_}; }
    // Changes with every change of the map.
    [[nodiscard]] std::uint64_t key() const noexcept { return key_; }
    [[nodiscard]] std::uint64_t pages_of(efi::MemoryType type) const noexcept;
    [[nodiscard]] const Region* find(std::uint64_t address) const noexcept;

  private:
    [[nodiscard]] bool convert(std::uint64_t start, std::uint64_t pages, efi::MemoryType to,
                               std::uint64_t attribute) noexcept;
    [[nodiscard]] bool insert(std::size_t at, const Region& region) noexcept;
    void erase(std::size_t at) noexcept;
    void join(std::size_t at) noexcept;
    [[nodiscard]] bool find_free(std::uint64_t pages, std::uint64_t limit,
                                 std::uint64_t& address) const noexcept;

    Region regions_[max_regions] = {};
    std::size_t count_ = 0;
    std::uint64_t key_ = 0;
};

}  // namespace masu::firmware

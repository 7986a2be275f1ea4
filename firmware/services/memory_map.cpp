#include "firmware/services/memory_map.hpp"

namespace masu::firmware {

using efi::MemoryType;
using efi::page_size;
using efi::Status;

namespace {

constexpr std::uint64_t four_gib = 1ULL << 32;
// Page 0 is never given out: its address would look like "no memory".
constexpr std::uint64_t lowest = page_size;

bool is_runtime(MemoryType type) noexcept {
    return type == MemoryType::RuntimeServicesCode || type == MemoryType::RuntimeServicesData;
}

std::uint64_t attribute_of(MemoryType type) noexcept {
    return efi::memory_wb | (is_runtime(type) ? efi::memory_runtime : 0);
}

bool may_be_allocated(MemoryType type) noexcept {
    const auto number = static_cast<std::uint32_t>(type);
    return (number < static_cast<std::uint32_t>(MemoryType::End) &&
            type != MemoryType::Conventional && type != MemoryType::Persistent &&
            type != MemoryType::Unaccepted) ||
           number >= 0x7000'0000;  // OEM's and the OS loader's own
}

}  // namespace

bool MemoryMap::insert(std::size_t at, const Region& region) noexcept {
    if (count_ == max_regions)
        return false;
    for (std::size_t i = count_; i > at; --i)
        regions_[i] = regions_[i - 1];
    regions_[at] = region;
    ++count_;
    return true;
}

void MemoryMap::erase(std::size_t at) noexcept {
    --count_;
    for (std::size_t i = at; i < count_; ++i)
        regions_[i] = regions_[i + 1];
}

// Region `at` with its neighbours, where they are of one kind.
void MemoryMap::join(std::size_t at) noexcept {
    const auto alike = [](const Region& a, const Region& b) {
        return a.end() == b.start && a.type == b.type && a.attribute == b.attribute;
    };
    if (at + 1 < count_ && alike(regions_[at], regions_[at + 1])) {
        regions_[at].pages += regions_[at + 1].pages;
        erase(at + 1);
    }
    if (at > 0 && alike(regions_[at - 1], regions_[at])) {
        regions_[at - 1].pages += regions_[at].pages;
        erase(at);
    }
}

bool MemoryMap::add(const Region& region) noexcept {
    if (region.pages == 0 || region.start % page_size != 0 ||
        region.pages > (~std::uint64_t{0} - region.start) / page_size)
        return false;
    std::size_t at = 0;
    while (at < count_ && regions_[at].start < region.start)
        ++at;
    if ((at > 0 && regions_[at - 1].end() > region.start) ||
        (at < count_ && regions_[at].start < region.end()))
        return false;
    if (!insert(at, region))
        return false;
    join(at);
    ++key_;
    return true;
}

const Region* MemoryMap::find(std::uint64_t address) const noexcept {
    for (const auto& region : regions())
        if (address >= region.start && address < region.end())
            return &region;
    return nullptr;
}

// The pages lie in one region; the ledger must have room for two more.
bool MemoryMap::convert(std::uint64_t start, std::uint64_t pages, MemoryType to,
                        std::uint64_t attribute) noexcept {
    const auto* found = find(start);
    if (found == nullptr || count_ + 2 > max_regions)
        return false;
    auto at = static_cast<std::size_t>(found - regions_);
    const Region old = regions_[at];
    const std::uint64_t end = start + pages * page_size;
    if (end > old.end())
        return false;
    regions_[at] = {start, pages, to, attribute};
    if (end < old.end())
        (void)insert(at + 1, {end, (old.end() - end) / page_size, old.type, old.attribute});
    if (old.start < start)
        (void)insert(at++, {old.start, (start - old.start) / page_size, old.type, old.attribute});
    join(at);
    ++key_;
    return true;
}

bool MemoryMap::reserve(std::uint64_t start, std::uint64_t pages, MemoryType type) noexcept {
    return pages != 0 && convert(start, pages, type, attribute_of(type));
}

bool MemoryMap::find_free(std::uint64_t pages, std::uint64_t limit,
                          std::uint64_t& address) const noexcept {
    for (std::size_t i = count_; i > 0; --i) {
        const auto& region = regions_[i - 1];
        if (region.type != MemoryType::Conventional)
            continue;
        const std::uint64_t start = region.start < lowest ? lowest : region.start;
        const std::uint64_t end = region.end() < limit ? region.end() : limit;
        if (end <= start || (end - start) / page_size < pages)
            continue;
        address = (end & ~(page_size - 1)) - pages * page_size;
        return true;
    }
    return false;
}

Status MemoryMap::allocate(efi::AllocateType kind, MemoryType type, std::uint64_t pages,
                           std::uint64_t& address) noexcept {
    if (!may_be_allocated(type))
        return Status::InvalidParameter;
    if (pages == 0 || pages > 1ULL << 40)
        return pages == 0 ? Status::InvalidParameter : Status::OutOfResources;
    std::uint64_t place = 0;
    switch (kind) {
        case efi::AllocateType::AnyPages:
            if (!find_free(pages, four_gib, place) && !find_free(pages, ~std::uint64_t{0}, place))
                return Status::OutOfResources;
            break;
        case efi::AllocateType::MaxAddress: {
            const std::uint64_t limit = address == ~std::uint64_t{0} ? address : address + 1;
            if (!find_free(pages, limit, place))
                return Status::OutOfResources;
            break;
        }
        case efi::AllocateType::Address: {
            place = address;
            const auto* region = find(place);
            if (place % page_size != 0 || place < lowest || region == nullptr ||
                region->type != MemoryType::Conventional ||
                (region->end() - place) / page_size < pages)
                return place % page_size != 0 ? Status::InvalidParameter : Status::NotFound;
            break;
        }
        default:
            return Status::InvalidParameter;
    }
    if (!convert(place, pages, type, attribute_of(type)))
        return Status::OutOfResources;
    address = place;
    return Status::Success;
}

Status MemoryMap::free(std::uint64_t address, std::uint64_t pages) noexcept {
    const auto* region = find(address);
    if (address % page_size != 0 || pages == 0)
        return Status::InvalidParameter;
    if (region == nullptr || region->type == MemoryType::Conventional ||
        region->type == MemoryType::Mmio || region->type == MemoryType::Reserved ||
        (region->end() - address) / page_size < pages)
        return Status::NotFound;
    return convert(address, pages, MemoryType::Conventional, efi::memory_wb)
               ? Status::Success
               : Status::OutOfResources;
}

std::uint64_t MemoryMap::pages_of(MemoryType type) const noexcept {
    std::uint64_t pages = 0;
    for (const auto& region : regions())
        if (region.type == type)
            pages += region.pages;
    return pages;
}

}  // namespace masu::firmware

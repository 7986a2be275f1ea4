#include "vmm/boot/initrd.hpp"

#include <algorithm>

#include "base/bytes.hpp"
#include "vmm/boot/image_file.hpp"

namespace masu::boot {

namespace {

constexpr std::uint64_t page = 4 * KiB;

}  // namespace

std::optional<GuestAddress> place_initrd(std::uint64_t size, const InitrdPlacement& placement,
                                         const GuestMemory& memory) {
    for (const auto& region : memory.regions()) {
        const bool is_high = region.start.value >= 4 * GiB;
        if (is_high && !placement.above_4g)
            break;
        const auto region_end = region.start.value + region.bytes.size();
        const auto end = is_high ? region_end : std::min(region_end, placement.highest_byte + 1);
        const auto start = std::max(region.start.value, align_up(placement.lowest, page));
        if (start >= end || size > end - start)
            continue;
        // Rounding down cannot pass `start`, which is at a page boundary itself.
        return GuestAddress{align_down(end - size, page)};
    }
    return std::nullopt;
}

Result<std::optional<LoadedInitrd>> load_initrd(const std::optional<std::string>& path,
                                                const InitrdPlacement& placement,
                                                const GuestMemory& memory) {
    if (!path)
        return std::nullopt;
    const auto file = TRY(ImageFile::open("initrd", *path));
    const auto address = place_initrd(file.size(), placement, memory);
    const auto bytes = address ? memory.slice(*address, file.size()) : std::nullopt;
    if (!bytes)
        return fail(
            "{} of {} does not fit beside the kernel into the VM's {} of memory: give the "
            "VM more memory",
            file.name(), format_size(file.size()), format_size(memory.total_bytes()));
    TRY(file.read(0, *bytes));
    return LoadedInitrd{*address, file.size()};
}

}  // namespace masu::boot

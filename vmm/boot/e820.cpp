#include "vmm/boot/e820.hpp"

#include "vmm/layout.hpp"

namespace masu::boot {

std::vector<E820Entry> e820_map(const GuestMemory& memory) {
    std::vector<E820Entry> map;
    bool ecam_listed = false;
    const auto list_ecam = [&] {
        map.push_back({layout::pci_ecam, layout::pci_ecam_size, E820Type::Reserved});
        ecam_listed = true;
    };
    for (const auto& region : memory.regions()) {
        auto start = region.start.value;
        const auto end = start + region.bytes.size();
        if (start > layout::pci_ecam && !ecam_listed)
            list_ecam();
        if (start == 0) {
            map.push_back({0, layout::ebda_start, E820Type::Ram});
            map.push_back({layout::ebda_start, layout::high_memory_start - layout::ebda_start,
                           E820Type::Reserved});
            start = layout::high_memory_start;
        }
        if (start < end)
            map.push_back({start, end - start, E820Type::Ram});
    }
    if (!ecam_listed)
        list_ecam();
    return map;
}

}  // namespace masu::boot

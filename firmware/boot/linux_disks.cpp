#include "firmware/boot/linux_disks.hpp"

#include "firmware/boot/find_boot.hpp"
#include "firmware/boot/linux_handoff.hpp"
#include "firmware/platform/milestone.hpp"
#include "firmware/platform/say.hpp"
#include "firmware/services/events.hpp"
#include "firmware/services/memory.hpp"

namespace masu::firmware {
namespace {

// Caches of the file systems, configuration files and what is made of them.
constexpr std::uint64_t arena_pages = 6 * 256;
constexpr std::size_t max_ranges = 128;  // as many as a kernel's e820 map takes

MemoryKind kind_of(efi::MemoryType type) noexcept {
    switch (type) {
        case efi::MemoryType::Conventional:
            return MemoryKind::Free;
        case efi::MemoryType::LoaderCode:
        case efi::MemoryType::LoaderData:
        case efi::MemoryType::BootServicesCode:
        case efi::MemoryType::BootServicesData:
        // A kernel entered without UEFI never calls the runtime services.
        case efi::MemoryType::RuntimeServicesCode:
        case efi::MemoryType::RuntimeServicesData:
            return MemoryKind::Firmware;
        case efi::MemoryType::AcpiReclaim:
            return MemoryKind::AcpiReclaim;
        case efi::MemoryType::AcpiNvs:
            return MemoryKind::AcpiNvs;
        default:
            return MemoryKind::Reserved;
    }
}

struct Map {
    MemoryRange ranges[max_ranges] = {};
    std::size_t count = 0;
};

bool make_map(Map& map) noexcept {
    for (const auto& region : memory_map().regions()) {
        const MemoryRange range{region.start, region.pages * efi::page_size, kind_of(region.type)};
        auto* last = map.count == 0 ? nullptr : &map.ranges[map.count - 1];
        if (last != nullptr && last->kind == range.kind && last->start + last->size == range.start) {
            last->size += range.size;
        } else if (map.count == max_ranges) {
            return false;
        } else {
            map.ranges[map.count++] = range;
        }
    }
    return true;
}

// All memory is mapped where it is.
class IdentityMemory final : public PhysicalMemory {
  public:
    [[nodiscard]] std::span<std::byte> at(std::uint64_t address,
                                          std::size_t size) noexcept override {
        return {reinterpret_cast<std::byte*>(address), size};
    }
};

void enter(const DiskScan& scan, const BootEntry& entry, const BootInfo& info) noexcept {
    auto* map = make<Map>();
    if (map == nullptr || !make_map(*map)) {
        say("too little memory to hand over to a kernel");
        return;
    }
    IdentityMemory memory;
    const auto plan = prepare_handoff(scan.devices(), entry, std::span(map->ranges, map->count),
                                      info.rsdp, memory);
    if (!plan) {
        say(plan.error().view());
        return;
    }
    stop_timers();
    stop_disks();
    milestone(FirmwareEvent::KernelHandover);
    enter_kernel(*plan);
}

}  // namespace

void boot_linux(std::span<Disk* const> disks, const BootInfo& info) noexcept {
    auto* memory = allocate_data_pages(arena_pages);
    auto* arena =
        memory == nullptr ? nullptr : make<Arena>(std::span(memory, arena_pages * efi::page_size));
    auto* scan = arena == nullptr ? nullptr : arena->make<DiskScan>();
    if (scan == nullptr) {
        say("too little memory to look at the disks' file systems");
        return;
    }
    BlockReader* readers[max_disks] = {};
    for (std::size_t i = 0; i < disks.size(); ++i)
        readers[i] = disks[i]->device.blk;
    scan_disks(std::span(readers, disks.size()), *arena, *scan);
    for (const auto& note : scan->notes())
        say(note.view());
    const auto only = info.boot_device == 0 ? std::nullopt
                                            : std::optional<std::uint32_t>(info.boot_device - 1);
    const auto menu = find_boot(scan->devices(), only, *arena);
    if (!menu) {
        say(menu.error().view());
        return;
    }
    const auto& entry = menu->entries[menu->chosen];
    say("booting '", Untrusted{entry.title}, "'");
    enter(*scan, entry, info);
}

}  // namespace masu::firmware

#include "firmware/platform/processor.hpp"

#include <cstring>
#include <iterator>

#include "firmware/platform/cpu.hpp"
#include "firmware/platform/milestone.hpp"
#include "firmware/platform/say.hpp"
#include "firmware/services/images.hpp"
#include "firmware/services/memory.hpp"

extern "C" {
extern const char masu_exception_stubs[];
[[noreturn]] void masu_exception(std::uint64_t vector, std::uint64_t code, std::uint64_t rip,
                                 std::uint64_t fault_address, std::uint64_t rsp);
}

namespace masu::firmware {
namespace {

// Intel SDM vol. 3, 6.14.1
struct Gate {
    std::uint16_t offset_low;
    std::uint16_t selector;
    std::uint8_t ist;
    std::uint8_t type;
    std::uint16_t offset_middle;
    std::uint32_t offset_high;
    std::uint32_t reserved;
};
static_assert(sizeof(Gate) == 16);
constinit Gate gates[32] = {};

void set_up_exceptions() noexcept {
    constexpr std::uint8_t interrupt_gate = 0x8e;
    constexpr std::uint64_t stub_size = 16;
    std::uint16_t code_segment = 0;
    asm volatile("mov %%cs, %0" : "=r"(code_segment));
    for (std::size_t i = 0; i < std::size(gates); ++i) {
        const auto at = reinterpret_cast<std::uint64_t>(masu_exception_stubs) + i * stub_size;
        gates[i] = {static_cast<std::uint16_t>(at), code_segment,  0, interrupt_gate,
                    static_cast<std::uint16_t>(at >> 16), static_cast<std::uint32_t>(at >> 32), 0};
    }
    const struct {
        std::uint16_t limit;
        std::uint64_t base;
    } __attribute__((packed)) table{sizeof gates - 1, reinterpret_cast<std::uint64_t>(gates)};
    asm volatile("lidt %0" : : "m"(table));
}

void set_up_fpu() noexcept {
    constexpr std::uint32_t cpuid_fxsr = 1U << 24;
    constexpr std::uint64_t cr0_mp = 1U << 1;
    constexpr std::uint64_t cr0_em = 1U << 2;
    constexpr std::uint64_t cr0_ne = 1U << 5;
    constexpr std::uint64_t cr4_osfxsr = 1U << 9;
    constexpr std::uint64_t cr4_osxmmexcpt = 1U << 10;
    if ((cpu::cpuid(1).edx & cpuid_fxsr) == 0)
        return;
    std::uint64_t cr0 = 0;
    std::uint64_t cr4 = 0;
    asm volatile("mov %%cr0, %0" : "=r"(cr0));
    asm volatile("mov %%cr4, %0" : "=r"(cr4));
    asm volatile("mov %0, %%cr0" : : "r"((cr0 | cr0_mp | cr0_ne) & ~cr0_em));
    asm volatile("mov %0, %%cr4" : : "r"(cr4 | cr4_osfxsr | cr4_osxmmexcpt));
}

std::uint64_t highest_address() noexcept {
    const auto regions = memory_map().regions();
    return regions.empty() ? 0 : regions.back().end();
}

// The monitor's tables map 4 GiB. More memory needs our own: 1 GiB pages where there are some.
bool map_all_memory() noexcept {
    constexpr std::uint64_t gib = 1ULL << 30;
    constexpr std::uint64_t entry_flags = 0x3;  // present, writable
    constexpr std::uint64_t large = 0x80;
    constexpr std::uint32_t cpuid_1g = 1U << 26;
    constexpr std::uint64_t entries = 512;
    const std::uint64_t gibs = (highest_address() + gib - 1) / gib;
    if (gibs <= 4)
        return true;
    const bool huge = (cpu::cpuid(0x8000'0001).edx & cpuid_1g) != 0;
    const std::uint64_t tables = (gibs + entries - 1) / entries;
    const std::uint64_t pages = 1 + tables + (huge ? 0 : gibs);
    auto* memory = allocate_data_pages(pages);
    if (memory == nullptr)
        return false;
    std::memset(memory, 0, pages * efi::page_size);
    auto* top = reinterpret_cast<std::uint64_t*>(memory);
    auto* pointers = top + entries;
    auto* directories = pointers + tables * entries;
    for (std::uint64_t i = 0; i < tables; ++i)
        top[i] = reinterpret_cast<std::uint64_t>(pointers + i * entries) | entry_flags;
    for (std::uint64_t i = 0; i < gibs; ++i)
        pointers[i] = huge ? i * gib | entry_flags | large
                           : reinterpret_cast<std::uint64_t>(directories + i * entries) | entry_flags;
    for (std::uint64_t i = 0; !huge && i < gibs * entries; ++i)
        directories[i] = i * (gib / entries) | entry_flags | large;
    asm volatile("mov %0, %%cr3" : : "r"(top) : "memory");
    return true;
}

}  // namespace

bool set_up_processor() noexcept {
    set_up_exceptions();
    set_up_fpu();
    return map_all_memory();
}

}  // namespace masu::firmware

extern "C" void masu_exception(std::uint64_t vector, std::uint64_t code, std::uint64_t rip,
                               std::uint64_t fault_address, std::uint64_t rsp) {
    using namespace masu::firmware;
    put(std::string_view("\r\n"));
    const auto* image = image_at(rip);
    say("exception ", vector, " (error code ", Hex{code}, ", address ", Hex{fault_address},
        ") at ", Hex{rip},
        std::string_view(image == nullptr ? ", in the firmware" : ", in a boot loader"), "; RSP ",
        Hex{rsp});
    if (image != nullptr)
        say("the boot loader's image starts at ",
            Hex{reinterpret_cast<std::uint64_t>(image->image_base)});
    milestone(FirmwareEvent::Crash);
    cpu::halt();
}

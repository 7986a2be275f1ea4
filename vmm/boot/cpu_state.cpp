#include "vmm/boot/cpu_state.hpp"

#include <array>

#include "base/bytes.hpp"
#include "vmm/layout.hpp"

namespace masu::boot {

namespace {

// Selectors the 64-bit boot protocol names __BOOT_CS and __BOOT_DS; PVH leaves them open.
constexpr std::uint16_t code_selector = 0x10;
constexpr std::uint16_t data_selector = 0x18;
constexpr std::uint16_t task_selector = 0x20;

// Flat descriptors, base 0, limit 4 GiB (Intel SDM vol. 3, 3.4.5).
constexpr std::uint64_t code64 = 0x00af'9b00'0000'ffff;
constexpr std::uint64_t code32 = 0x00cf'9b00'0000'ffff;
constexpr std::uint64_t data_flat = 0x00cf'9300'0000'ffff;
constexpr std::uint64_t task_busy = 0x0000'8b00'0000'0067;

constexpr std::uint64_t code_descriptor(EntryMode mode) {
    return mode == EntryMode::Long64 ? code64 : code32;
}

constexpr std::array<std::uint64_t, 5> make_gdt(EntryMode mode) {
    return {0, 0, code_descriptor(mode), data_flat, task_busy};
}

kvm_segment segment(std::uint64_t descriptor, std::uint16_t selector) {
    const auto field = [descriptor](unsigned low, unsigned width) {
        return static_cast<std::uint8_t>((descriptor >> low) & ((1U << width) - 1));
    };
    kvm_segment result{};
    result.selector = selector;
    result.type = field(40, 4);
    result.s = field(44, 1);
    result.dpl = field(45, 2);
    result.present = field(47, 1);
    result.avl = field(52, 1);
    result.l = field(53, 1);
    result.db = field(54, 1);
    result.g = field(55, 1);
    const auto limit =
        static_cast<std::uint32_t>((descriptor & 0xffff) | ((descriptor >> 32) & 0xf'0000));
    result.limit = result.g != 0 ? limit << 12 | 0xfff : limit;
    result.unusable = 0;
    return result;
}

// PML4, PDPT, and four page directories of 2 MiB pages: the low 4 GiB mapped 1:1.
bool write_page_tables(const GuestMemory& memory) {
    constexpr std::uint64_t present_writable = 0x3;
    constexpr std::uint64_t large_page = 0x80;
    constexpr std::uint64_t page = 4 * KiB;
    constexpr GuestAddress pml4{layout::boot_page_tables};
    constexpr GuestAddress pdpt = pml4 + page;
    constexpr GuestAddress directories = pdpt + page;
    bool ok = memory.store(pml4, pdpt.value | present_writable);
    for (std::uint64_t i = 0; i < 4; ++i)
        ok = ok && memory.store(pdpt + i * 8, (directories.value + i * page) | present_writable);
    for (std::uint64_t i = 0; i < 4 * 512; ++i)
        ok = ok && memory.store(directories + i * 8, (i * 2 * MiB) | present_writable | large_page);
    return ok;
}

}  // namespace

Result<> write_entry_tables(const GuestMemory& memory, EntryMode mode) {
    const auto gdt = make_gdt(mode);
    const bool ok = memory.store(GuestAddress{layout::boot_gdt}, gdt) &&
                    (mode == EntryMode::Protected32 || write_page_tables(memory));
    if (!ok)
        return fail("guest memory is too small for the boot tables: give the VM at least 64 MiB");
    return {};
}

void apply_entry_state(const EntryState& entry, kvm_sregs& sregs, kvm_regs& regs) {
    constexpr std::uint64_t cr0_protected = 0x11;  // PE, ET
    constexpr std::uint64_t cr0_paging = 0x8000'0000;
    constexpr std::uint64_t cr4_pae = 0x20;
    constexpr std::uint64_t efer_long = 0x500;  // LME, LMA
    constexpr std::uint64_t rflags_reserved = 0x2;

    sregs.gdt.base = layout::boot_gdt;
    sregs.gdt.limit = sizeof(make_gdt(entry.mode)) - 1;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cs = segment(code_descriptor(entry.mode), code_selector);
    const auto data = segment(data_flat, data_selector);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.tr = segment(task_busy, task_selector);
    sregs.cr0 = cr0_protected;
    sregs.cr4 = 0;
    sregs.efer = 0;

    regs = {};
    regs.rflags = rflags_reserved;
    regs.rip = entry.instruction_pointer;
    regs.rsp = regs.rbp = layout::boot_stack;
    if (entry.mode == EntryMode::Long64) {
        sregs.cr0 |= cr0_paging;
        sregs.cr3 = layout::boot_page_tables;
        sregs.cr4 = cr4_pae;
        sregs.efer = efer_long;
        regs.rsi = entry.parameters;
    } else {
        regs.rbx = entry.parameters;
    }
}

}  // namespace masu::boot

// The boot processor at a kernel's entry point: descriptor table, page tables and registers.
#pragma once

#include "vmm/kvm/kvm_abi.hpp"

#include <cstdint>

#include "base/result.hpp"
#include "devices/guest_memory.hpp"

namespace masu::boot {

// How a kernel is entered.
enum class EntryMode {
    Long64,       // 64-bit boot protocol: long mode, low 4 GiB mapped 1:1, RSI = parameters
    Protected32,  // PVH: 32-bit flat protected mode, paging off, EBX = parameters
};

struct EntryState {
    EntryMode mode = EntryMode::Long64;
    std::uint64_t instruction_pointer = 0;
    std::uint64_t parameters = 0;  // guest address of the zero page or the PVH start info
};

// Writes what the entry mode needs in guest memory (layout::boot_gdt, layout::boot_page_tables).
[[nodiscard]] Result<> write_entry_tables(const GuestMemory& memory, EntryMode mode);

// Registers for that entry, on top of what a reset vCPU holds.
void apply_entry_state(const EntryState& entry, kvm_sregs& sregs, kvm_regs& regs);

}  // namespace masu::boot

// The model-specific registers and local interrupt pins a vCPU starts with.
#pragma once

#include "vmm/kvm/kvm_abi.hpp"

#include <vector>

namespace masu::kvm {

// Boot values: SYSENTER, STAR and friends 0, fast strings on, memory write-back by default, TSC 0.
[[nodiscard]] std::vector<kvm_msr_entry> boot_msrs();

// LINT0 takes the (absent) 8259's interrupts, LINT1 is the NMI: as firmware leaves a LAPIC.
void set_boot_lint(kvm_lapic_state& lapic);

}  // namespace masu::kvm

// A leaf of CPUID as KVM reports it.
#pragma once

#include "vmm/kvm/cpuid.hpp"

namespace masu::kvm {

// `index`: its subleaf; -1 where the leaf has none.
inline kvm_cpuid_entry2 leaf(std::uint32_t function, std::uint32_t eax, std::uint32_t ebx,
                             std::uint32_t ecx, std::uint32_t edx, int index = -1) {
    kvm_cpuid_entry2 entry{};
    entry.function = function;
    if (index >= 0) {
        entry.index = static_cast<std::uint32_t>(index);
        entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    }
    entry.eax = eax;
    entry.ebx = ebx;
    entry.ecx = ecx;
    entry.edx = edx;
    return entry;
}

}  // namespace masu::kvm

// Which CPU the guest sees: a pure function from what the host's KVM supports to CPUID leaves.
#pragma once

#include "vmm/kvm/kvm_abi.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace masu::kvm {

// How the vCPUs are laid out: one socket; with smt, vCPUs 2n and 2n+1 are threads of one core.
struct CpuTopology {
    unsigned vcpu_count = 1;
    bool smt = false;
};

struct CpuidPolicy {
    CpuTopology topology;
    bool tsc_deadline = true;  // KVM_CAP_TSC_DEADLINE_TIMER: not listed in the supported leaves
};

using CpuidLeaves = std::vector<kvm_cpuid_entry2>;

// The leaves for the vCPU of `apic_id` (= its index). Nothing is offered that `supported` lacks but
// what the in-kernel LAPIC adds: x2APIC, TSC deadline and the hypervisor bit. Hidden: the PMU,
// MONITOR, SMM and nested virtualization's dependants KVM does not list anyway. Caches are
// described as shared by the topology given, not the host's.
[[nodiscard]] CpuidLeaves make_cpuid(std::span<const kvm_cpuid_entry2> supported,
                                     const CpuidPolicy& policy, std::uint32_t apic_id);

// The leaf (and subleaf), or null.
[[nodiscard]] const kvm_cpuid_entry2* find_leaf(std::span<const kvm_cpuid_entry2> leaves,
                                                std::uint32_t function, std::uint32_t index = 0);

}  // namespace masu::kvm

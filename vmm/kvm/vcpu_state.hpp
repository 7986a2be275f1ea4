// Everything KVM keeps for one vCPU, out of it and back in, in the orders KVM needs.
#pragma once

#include "vmm/kvm/kvm_abi.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "vmm/kvm/cpuid.hpp"
#include "vmm/kvm/kvm.hpp"
#include "vmm/kvm/vcpu.hpp"

namespace masu::kvm {

// Plain data of the KVM ABI, which never changes shape; what a host does not have is absent or
// zero.
struct VcpuRegisters {
    kvm_regs regs{};
    kvm_sregs sregs{};
    bool has_pdptrs = false;  // KVM_SREGS2_FLAGS_PDPTRS_VALID
    std::uint64_t pdptrs[4]{};
    kvm_xcrs xcrs{};
    std::vector<std::byte> xsave;  // KVM_GET_XSAVE2's size, 4096 on older hosts
    kvm_debugregs debugregs{};
    kvm_lapic_state lapic{};
    kvm_vcpu_events events{};
    std::uint32_t mp_state = 0;
    std::uint32_t tsc_khz = 0;        // 0: the host does not tell
    std::vector<kvm_msr_entry> msrs;  // in the order they are to be set
};

// MSR numbers that callers must know by name.
inline constexpr std::uint32_t msr_tsc = 0x10;
inline constexpr std::uint32_t msr_tsc_deadline = 0x6e0;

// The MSRs this host's KVM wants saved (KVM_GET_MSR_INDEX_LIST), in the order to set them: TSC and
// TSC_ADJUST first, since kvmclock and timers are reckoned from them; kvmclock's own after all
// others; the TSC deadline last, as it arms a timer that needs the LAPIC in its mode.
[[nodiscard]] Result<std::vector<std::uint32_t>> saved_msr_list(const Kvm& kvm);
[[nodiscard]] std::vector<std::uint32_t> in_restore_order(std::vector<std::uint32_t> msrs);

// The vCPU stands still, and every exit is completed (VcpuSet::pause()). MSRs of `wanted` the vCPU
// does not have are left out.
[[nodiscard]] Result<VcpuRegisters> save_registers(const Kvm& kvm, Vcpu& vcpu,
                                                   std::span<const std::uint32_t> wanted);

// For a vCPU with its CPUID set that has never run. `tsc_advance` is added to the TSC. Fails with a
// sentence that names the register class, or the MSR and its value.
[[nodiscard]] Result<> restore_registers(const Kvm& kvm, Vcpu& vcpu, const VcpuRegisters& registers,
                                         std::uint64_t tsc_advance);
// The same in two steps. The first sets what stands still, and may be long before the vCPU runs;
// the second what time moves (TSC, kvmclock, LAPIC timer) and the events, and must be just before.
[[nodiscard]] Result<> restore_still_registers(const Kvm& kvm, Vcpu& vcpu,
                                               const VcpuRegisters& registers);
[[nodiscard]] Result<> restore_timed_registers(Vcpu& vcpu, const VcpuRegisters& registers,
                                               std::uint64_t tsc_advance);

// Of the MSRs saved, those that a guest with these leaves can have used. The others hold the host's
// business (ARCH_CAPABILITIES, ...), and another host would refuse them for nothing.
[[nodiscard]] std::vector<kvm_msr_entry> shown_msrs(std::vector<kvm_msr_entry> msrs,
                                                    std::span<const kvm_cpuid_entry2> leaves);

}  // namespace masu::kvm

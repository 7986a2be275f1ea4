#include "vmm/kvm/msrs.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace masu::kvm {

namespace {

// Intel SDM vol. 4, table 2-2; AMD APM vol. 2, appendix A.
constexpr std::uint32_t msr_tsc = 0x10;
constexpr std::uint32_t msr_sysenter_cs = 0x174;
constexpr std::uint32_t msr_sysenter_esp = 0x175;
constexpr std::uint32_t msr_sysenter_eip = 0x176;
constexpr std::uint32_t msr_misc_enable = 0x1a0;
constexpr std::uint32_t msr_mtrr_def_type = 0x2ff;
constexpr std::uint32_t msr_star = 0xc000'0081;
constexpr std::uint32_t msr_lstar = 0xc000'0082;
constexpr std::uint32_t msr_cstar = 0xc000'0083;
constexpr std::uint32_t msr_syscall_mask = 0xc000'0084;
constexpr std::uint32_t msr_kernel_gs_base = 0xc000'0102;

constexpr std::uint64_t fast_strings = 1;
constexpr std::uint64_t mtrr_enabled = 1 << 11;
constexpr std::uint64_t mtrr_write_back = 6;

// Offsets of the local vector table in a LAPIC page (Intel SDM vol. 3, table 11-1).
constexpr std::size_t lapic_lvt_lint0 = 0x350;
constexpr std::size_t lapic_lvt_lint1 = 0x360;
constexpr std::uint32_t delivery_mode_mask = 0x700;
constexpr std::uint32_t delivery_mode_nmi = 0x400;
constexpr std::uint32_t delivery_mode_external = 0x700;

void set_delivery_mode(kvm_lapic_state& lapic, std::size_t offset, std::uint32_t mode) {
    std::uint32_t value = 0;
    std::memcpy(&value, lapic.regs + offset, sizeof value);
    value = (value & ~delivery_mode_mask) | mode;
    std::memcpy(lapic.regs + offset, &value, sizeof value);
}

}  // namespace

std::vector<kvm_msr_entry> boot_msrs() {
    std::vector<kvm_msr_entry> msrs;
    for (const auto zeroed : {msr_sysenter_cs, msr_sysenter_esp, msr_sysenter_eip, msr_star,
                              msr_cstar, msr_kernel_gs_base, msr_syscall_mask, msr_lstar, msr_tsc})
        msrs.push_back({.index = zeroed, .reserved = 0, .data = 0});
    msrs.push_back({.index = msr_misc_enable, .reserved = 0, .data = fast_strings});
    msrs.push_back(
        {.index = msr_mtrr_def_type, .reserved = 0, .data = mtrr_enabled | mtrr_write_back});
    return msrs;
}

void set_boot_lint(kvm_lapic_state& lapic) {
    set_delivery_mode(lapic, lapic_lvt_lint0, delivery_mode_external);
    set_delivery_mode(lapic, lapic_lvt_lint1, delivery_mode_nmi);
}

}  // namespace masu::kvm

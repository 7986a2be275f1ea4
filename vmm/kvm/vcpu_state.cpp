#include "vmm/kvm/vcpu_state.hpp"

#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>

#include "vmm/kvm/counted_list.hpp"
#include "vmm/kvm/cpu_features.hpp"

namespace masu::kvm {

namespace {

// KVM documents no limit; hosts name some hundreds.
constexpr std::size_t max_msrs = 4096;
constexpr std::size_t plain_xsave_size = sizeof(kvm_xsave);

constexpr std::uint32_t msr_tsc_adjust = 0x3b;
constexpr std::uint32_t msr_apic_base = 0x1b;  // part of the system registers
// kvmclock: wall clock and system time, old and new numbers (KVM's documentation, msr.rst).
constexpr std::array<std::uint32_t, 4> kvmclock_msrs{0x11, 0x12, 0x4b56'4d00, 0x4b56'4d01};

constexpr int plain_rank = 2;  // of those that time does not move

int rank(std::uint32_t msr) {
    if (msr == msr_tsc_adjust)
        return 0;
    if (msr == msr_tsc)
        return 1;
    if (msr == msr_tsc_deadline)
        return 4;
    return std::ranges::find(kvmclock_msrs, msr) != kvmclock_msrs.end() ? 3 : plain_rank;
}

template <class T>
Result<> get(const Vcpu& vcpu, unsigned long request, T& value, const char* what) {
    if (::ioctl(vcpu.fd(), request, &value) < 0)
        return fail_errno(errno, "KVM does not give the {} of vCPU {}", what, vcpu.index());
    return {};
}

template <class T>
Result<> set(const Vcpu& vcpu, unsigned long request, const T& value, const char* what) {
    if (::ioctl(vcpu.fd(), request, &value) < 0)
        return fail_errno(errno, "KVM does not take the saved {} of vCPU {}", what, vcpu.index());
    return {};
}

Result<> get_xsave(const Kvm& kvm, const Vcpu& vcpu, std::vector<std::byte>& xsave) {
#ifdef KVM_CAP_XSAVE2
    if (const int size = kvm.capability(KVM_CAP_XSAVE2);
        size > static_cast<int>(plain_xsave_size)) {
        xsave.resize(static_cast<std::size_t>(size));
        if (::ioctl(vcpu.fd(), KVM_GET_XSAVE2, xsave.data()) < 0)
            return fail_errno(errno, "KVM does not give the XSAVE state of vCPU {}", vcpu.index());
        return {};
    }
#endif
    if (kvm.capability(KVM_CAP_XSAVE) <= 0)
        return {};
    xsave.resize(plain_xsave_size);
    if (::ioctl(vcpu.fd(), KVM_GET_XSAVE, xsave.data()) < 0)
        return fail_errno(errno, "KVM does not give the XSAVE state of vCPU {}", vcpu.index());
    return {};
}

// KVM reads as many bytes as this host's XSAVE2 size says, so a smaller state is filled up.
Result<> set_xsave(const Kvm& kvm, const Vcpu& vcpu, std::span<const std::byte> xsave) {
    if (xsave.empty())
        return {};
    std::size_t size = plain_xsave_size;
#ifdef KVM_CAP_XSAVE2
    size = std::max<std::size_t>(size, static_cast<std::size_t>(kvm.capability(KVM_CAP_XSAVE2)));
#endif
    if (xsave.size() > size)
        return fail(
            "the saved XSAVE state of vCPU {} has {} bytes and this host takes {}: restore "
            "it on a host whose CPU has the same extensions",
            vcpu.index(), xsave.size(), size);
    std::vector<std::byte> buffer(size);
    std::ranges::copy(xsave, buffer.begin());
    if (::ioctl(vcpu.fd(), KVM_SET_XSAVE, buffer.data()) < 0)
        return fail_errno(errno, "KVM does not take the saved XSAVE state of vCPU {}",
                          vcpu.index());
    return {};
}

// KVM stops at the first MSR it does not have for this vCPU.
Result<std::vector<kvm_msr_entry>> get_msrs(const Vcpu& vcpu,
                                            std::span<const std::uint32_t> wanted) {
    std::vector<kvm_msr_entry> found;
    std::size_t next = 0;
    while (next < wanted.size()) {
        std::vector<kvm_msr_entry> asked;
        for (const auto index : wanted.subspan(next))
            asked.push_back({.index = index, .reserved = 0, .data = 0});
        CountedList<kvm_msr_entry> list{std::span<const kvm_msr_entry>(asked)};
        const int count = ::ioctl(vcpu.fd(), KVM_GET_MSRS, list.data());
        if (count < 0)
            return fail_errno(errno, "KVM does not give the MSRs of vCPU {}", vcpu.index());
        const auto given = std::min(static_cast<std::size_t>(count), asked.size());
        const auto entries = list.entries();
        found.insert(found.end(), entries.begin(),
                     entries.begin() + static_cast<std::ptrdiff_t>(given));
        next += given + 1;
    }
    return found;
}

// An MSR KVM refuses to be set matters only if it does not hold the value already.
Result<> set_msrs(const Vcpu& vcpu, std::span<const kvm_msr_entry> msrs) {
    while (!msrs.empty()) {
        CountedList<kvm_msr_entry> list(msrs);
        const int count = ::ioctl(vcpu.fd(), KVM_SET_MSRS, list.data());
        if (count < 0)
            return fail_errno(errno, "KVM does not take the saved MSRs of vCPU {}", vcpu.index());
        const auto taken = static_cast<std::size_t>(count);
        if (taken >= msrs.size())
            return {};
        const auto& refused = msrs[taken];
        const auto present = TRY(get_msrs(vcpu, std::span(&refused.index, 1)));
        const bool same = present.size() == 1 && present[0].data == refused.data;
        if (!same && !(present.empty() && refused.data == 0))
            return fail(
                "KVM does not take {:#x} for MSR {:#x} of vCPU {}, which the snapshot "
                "holds: restore it on a host with the same CPU and a kernel as new",
                refused.data, refused.index, vcpu.index());
        msrs = msrs.subspan(taken + 1);
    }
    return {};
}

Result<> set_tsc_khz(const Kvm& kvm, const Vcpu& vcpu, std::uint32_t wanted) {
    if (wanted == 0)
        return {};
    const int present = ::ioctl(vcpu.fd(), KVM_GET_TSC_KHZ, 0);
    if (present == static_cast<int>(wanted))
        return {};
    if (::ioctl(vcpu.fd(), KVM_SET_TSC_KHZ, static_cast<unsigned long>(wanted)) < 0)
        return fail(
            "the guest's TSC runs at {} kHz and this host's at {} kHz, and {}: restore it "
            "on a host of the same speed",
            wanted, present,
            kvm.capability(KVM_CAP_TSC_CONTROL) > 0
                ? "KVM refuses to scale it"
                : "this CPU cannot scale it (KVM_CAP_TSC_CONTROL)");
    return {};
}

Result<> set_sregs(const Kvm& kvm, const Vcpu& vcpu, const VcpuRegisters& registers) {
#ifdef KVM_CAP_SREGS2
    if (registers.has_pdptrs && kvm.capability(KVM_CAP_SREGS2) > 0) {
        const auto& from = registers.sregs;
        kvm_sregs2 to{};
        to.cs = from.cs;
        to.ds = from.ds;
        to.es = from.es;
        to.fs = from.fs;
        to.gs = from.gs;
        to.ss = from.ss;
        to.tr = from.tr;
        to.ldt = from.ldt;
        to.gdt = from.gdt;
        to.idt = from.idt;
        to.cr0 = from.cr0;
        to.cr2 = from.cr2;
        to.cr3 = from.cr3;
        to.cr4 = from.cr4;
        to.cr8 = from.cr8;
        to.efer = from.efer;
        to.apic_base = from.apic_base;
        to.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
        std::ranges::copy(registers.pdptrs, to.pdptrs);
        return set(vcpu, KVM_SET_SREGS2, to, "system registers");
    }
#endif
    return set(vcpu, KVM_SET_SREGS, registers.sregs, "system registers");
}

}  // namespace

Result<std::vector<std::uint32_t>> saved_msr_list(const Kvm& kvm) {
    // kvm_msr_list has no padding after its count.
    std::vector<std::uint32_t> raw(max_msrs + 1);
    raw[0] = max_msrs;
    if (::ioctl(kvm.fd(), KVM_GET_MSR_INDEX_LIST, raw.data()) < 0)
        return fail_errno(errno, "KVM does not list the MSRs to save");
    const auto count = std::min<std::size_t>(raw[0], max_msrs);
    std::vector<std::uint32_t> msrs(raw.begin() + 1,
                                    raw.begin() + 1 + static_cast<std::ptrdiff_t>(count));
    return in_restore_order(std::move(msrs));
}

std::vector<std::uint32_t> in_restore_order(std::vector<std::uint32_t> msrs) {
    std::erase(msrs, msr_apic_base);
    std::ranges::sort(msrs, [](std::uint32_t a, std::uint32_t b) {
        return std::pair(rank(a), a) < std::pair(rank(b), b);
    });
    const auto repeated = std::ranges::unique(msrs);
    msrs.erase(repeated.begin(), repeated.end());
    return msrs;
}

namespace {

// MSRs that come with a bit of CPUID (Intel SDM vol. 4, table 2-2; AMD APM vol. 2, appendix A).
struct MsrOfFeature {
    std::uint32_t msr;
    std::uint32_t function;
    std::uint32_t index;
    CpuidRegister reg;
    std::uint32_t bits;  // any of them
};
constexpr std::array msrs_of_features{
    MsrOfFeature{0x48, 7, 0, CpuidRegister::Edx, 1U << 26 | 1U << 27 | 1U << 31},  // SPEC_CTRL
    MsrOfFeature{0xcf, 7, 0, CpuidRegister::Edx, 1U << 30},    // CORE_CAPABILITIES
    MsrOfFeature{0xe1, 7, 0, CpuidRegister::Ecx, 1U << 5},     // UMWAIT_CONTROL
    MsrOfFeature{0x10a, 7, 0, CpuidRegister::Edx, 1U << 29},   // ARCH_CAPABILITIES
    MsrOfFeature{0x122, 7, 0, CpuidRegister::Edx, 1U << 29},   // TSX_CTRL, listed in the one before
    MsrOfFeature{0x1c4, 0xd, 1, CpuidRegister::Eax, 1U << 4},  // XFD
    MsrOfFeature{0x1c5, 0xd, 1, CpuidRegister::Eax, 1U << 4},  // XFD_ERR
    MsrOfFeature{0x345, 1, 0, CpuidRegister::Ecx, 1U << 15},   // PERF_CAPABILITIES
    MsrOfFeature{0xd90, 7, 0, CpuidRegister::Ebx, 1U << 14},   // BNDCFGS
    MsrOfFeature{0xda0, 0xd, 1, CpuidRegister::Eax, 1U << 3},  // XSS
};

bool is_shown(std::uint32_t msr, std::span<const kvm_cpuid_entry2> leaves) {
    constexpr std::uint32_t spec_ctrl = 0x48;
    // AMD tells of SPEC_CTRL in a leaf of its own.
    if (msr == spec_ctrl && (read_cpuid(leaves, 0x8000'0008, 0, CpuidRegister::Ebx) &
                             (1U << 14 | 1U << 15 | 1U << 24)) != 0)
        return true;
    const auto* found = std::ranges::find(msrs_of_features, msr, &MsrOfFeature::msr);
    return found == msrs_of_features.end() ||
           (read_cpuid(leaves, found->function, found->index, found->reg) & found->bits) != 0;
}

}  // namespace

std::vector<kvm_msr_entry> shown_msrs(std::vector<kvm_msr_entry> msrs,
                                      std::span<const kvm_cpuid_entry2> leaves) {
    std::erase_if(msrs, [&](const auto& msr) { return !is_shown(msr.index, leaves); });
    return msrs;
}

// MP state first: reading it lets KVM take in a pending INIT or SIPI, which changes the rest.
// Events last: reading them settles what the others left pending.
Result<VcpuRegisters> save_registers(const Kvm& kvm, Vcpu& vcpu,
                                     std::span<const std::uint32_t> wanted) {
    VcpuRegisters registers;
    kvm_mp_state mp{};
    TRY(get(vcpu, KVM_GET_MP_STATE, mp, "MP state"));
    registers.mp_state = mp.mp_state;
    TRY(get(vcpu, KVM_GET_REGS, registers.regs, "registers"));
    TRY(get(vcpu, KVM_GET_SREGS, registers.sregs, "system registers"));
#ifdef KVM_CAP_SREGS2
    if (kvm.capability(KVM_CAP_SREGS2) > 0) {
        kvm_sregs2 sregs2{};
        TRY(get(vcpu, KVM_GET_SREGS2, sregs2, "system registers"));
        registers.has_pdptrs = (sregs2.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0;
        if (registers.has_pdptrs)
            std::ranges::copy(sregs2.pdptrs, registers.pdptrs);
    }
#endif
    if (kvm.capability(KVM_CAP_XCRS) > 0)
        TRY(get(vcpu, KVM_GET_XCRS, registers.xcrs, "extended control registers"));
    TRY(get_xsave(kvm, vcpu, registers.xsave));
    if (kvm.capability(KVM_CAP_DEBUGREGS) > 0)
        TRY(get(vcpu, KVM_GET_DEBUGREGS, registers.debugregs, "debug registers"));
    TRY(get(vcpu, KVM_GET_LAPIC, registers.lapic, "LAPIC"));
    const int khz = ::ioctl(vcpu.fd(), KVM_GET_TSC_KHZ, 0);
    registers.tsc_khz = khz > 0 ? static_cast<std::uint32_t>(khz) : 0;
    registers.msrs = TRY(get_msrs(vcpu, wanted));
    TRY(get(vcpu, KVM_GET_VCPU_EVENTS, registers.events, "events"));
    return registers;
}

Result<> restore_registers(const Kvm& kvm, Vcpu& vcpu, const VcpuRegisters& registers,
                           std::uint64_t tsc_advance) {
    TRY(restore_still_registers(kvm, vcpu, registers));
    return restore_timed_registers(vcpu, registers, tsc_advance);
}

Result<> restore_still_registers(const Kvm& kvm, Vcpu& vcpu, const VcpuRegisters& registers) {
    TRY(set_tsc_khz(kvm, vcpu, registers.tsc_khz));
    TRY(set(vcpu, KVM_SET_MP_STATE, kvm_mp_state{.mp_state = registers.mp_state}, "MP state"));
    TRY(set(vcpu, KVM_SET_REGS, registers.regs, "registers"));
    TRY(set_sregs(kvm, vcpu, registers));
    if (registers.xcrs.nr_xcrs > 0 && kvm.capability(KVM_CAP_XCRS) > 0)
        TRY(set(vcpu, KVM_SET_XCRS, registers.xcrs, "extended control registers"));
    TRY(set_xsave(kvm, vcpu, registers.xsave));
    if (kvm.capability(KVM_CAP_DEBUGREGS) > 0)
        TRY(set(vcpu, KVM_SET_DEBUGREGS, registers.debugregs, "debug registers"));
    std::vector<kvm_msr_entry> msrs;
    std::ranges::copy_if(registers.msrs, std::back_inserter(msrs),
                         [](const auto& msr) { return rank(msr.index) == plain_rank; });
    return set_msrs(vcpu, msrs);
}

// The TSC before the LAPIC, whose timer may be reckoned in it; the deadline after the LAPIC; events
// at the end, since earlier calls may clear them.
Result<> restore_timed_registers(Vcpu& vcpu, const VcpuRegisters& registers,
                                 std::uint64_t tsc_advance) {
    std::vector<kvm_msr_entry> msrs;
    std::ranges::copy_if(registers.msrs, std::back_inserter(msrs),
                         [](const auto& msr) { return rank(msr.index) != plain_rank; });
    for (auto& msr : msrs)
        if (msr.index == msr_tsc)
            msr.data += tsc_advance;
    const auto deadline = std::ranges::find(msrs, msr_tsc_deadline, &kvm_msr_entry::index);
    TRY(set_msrs(vcpu, std::span<const kvm_msr_entry>(msrs.begin(), deadline)));
    TRY(set(vcpu, KVM_SET_LAPIC, registers.lapic, "LAPIC"));
    // Zero means disarmed, which it is.
    if (deadline != msrs.end() && deadline->data != 0)
        TRY(set_msrs(vcpu, std::span<const kvm_msr_entry>(deadline, msrs.end())));
    return set(vcpu, KVM_SET_VCPU_EVENTS, registers.events, "events");
}

}  // namespace masu::kvm

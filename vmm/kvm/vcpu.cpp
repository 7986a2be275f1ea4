#include "vmm/kvm/vcpu.hpp"

#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <csignal>

#include "vmm/kvm/counted_list.hpp"
#include "vmm/kvm/msrs.hpp"

namespace masu::kvm {

namespace {

int kick_signal() noexcept {
    return SIGRTMIN;
}

}  // namespace

Result<Vcpu> Vcpu::create(const Kvm& kvm, const Vm& vm, unsigned index) {
    Fd fd(::ioctl(vm.fd(), KVM_CREATE_VCPU, index));
    if (!fd) {
        const int error = errno;
        const int most = kvm.capability(KVM_CAP_MAX_VCPUS);
        if (most > 0 && index >= static_cast<unsigned>(most))
            return fail("this host's KVM allows {} vCPUs per VM: ask for no more", most);
        return fail_errno(error, "KVM cannot make vCPU {}", index);
    }
    auto run = TRY(Mapping::create("vCPU state", kvm.run_size(), PROT_READ | PROT_WRITE, MAP_SHARED,
                                   fd.get()));
    return Vcpu(std::move(fd), std::move(run), index);
}

kvm_run& Vcpu::state() noexcept {
    return *reinterpret_cast<kvm_run*>(run_.data());
}

Result<> Vcpu::set_cpuid(const CpuidLeaves& leaves) {
    using List = CountedList<kvm_cpuid_entry2>;
    List list(leaves);
    if (::ioctl(fd(), KVM_SET_CPUID2, list.data()) < 0)
        return fail_errno(errno, "KVM does not take the CPUID of vCPU {}", index_);
    return {};
}

Result<> Vcpu::set_boot_defaults() {
    const auto msrs = boot_msrs();
    using List = CountedList<kvm_msr_entry>;
    List list(msrs);
    const int taken = ::ioctl(fd(), KVM_SET_MSRS, list.data());
    if (taken < 0)
        return fail_errno(errno, "KVM does not take the MSRs of vCPU {}", index_);
    if (static_cast<std::size_t>(taken) < msrs.size())
        return fail("KVM does not take MSR {:#x} of vCPU {}",
                    msrs[static_cast<std::size_t>(taken)].index, index_);
    kvm_lapic_state lapic{};
    if (::ioctl(fd(), KVM_GET_LAPIC, &lapic) < 0)
        return fail_errno(errno, "KVM does not give the LAPIC of vCPU {}", index_);
    set_boot_lint(lapic);
    if (::ioctl(fd(), KVM_SET_LAPIC, &lapic) < 0)
        return fail_errno(errno, "KVM does not take the LAPIC of vCPU {}", index_);
    return {};
}

Result<> Vcpu::set_entry(const boot::EntryState& entry) {
    kvm_sregs sregs{};
    if (::ioctl(fd(), KVM_GET_SREGS, &sregs) < 0)
        return fail_errno(errno, "KVM does not give the system registers of vCPU {}", index_);
    kvm_regs regs{};
    boot::apply_entry_state(entry, sregs, regs);
    if (::ioctl(fd(), KVM_SET_SREGS, &sregs) < 0)
        return fail_errno(errno, "KVM does not take the system registers of vCPU {}", index_);
    if (::ioctl(fd(), KVM_SET_REGS, &regs) < 0)
        return fail_errno(errno, "KVM does not take the registers of vCPU {}", index_);
    return {};
}

Result<kvm_regs> Vcpu::registers() const {
    kvm_regs regs{};
    if (::ioctl(fd(), KVM_GET_REGS, &regs) < 0)
        return fail_errno(errno, "KVM does not give the registers of vCPU {}", index_);
    return regs;
}

std::uint64_t Vcpu::tsc_khz() const noexcept {
    const int khz = ::ioctl(fd(), KVM_GET_TSC_KHZ, 0);
    return khz > 0 ? static_cast<std::uint64_t>(khz) : 0;
}

int Vcpu::run() noexcept {
    return ::ioctl(fd(), KVM_RUN, 0) < 0 ? errno : 0;
}

// The flag catches a thread on its way into KVM_RUN, the signal one that is in there.
void Vcpu::kick(pthread_t thread) noexcept {
    std::atomic_ref(state().immediate_exit).store(1);
    ::pthread_kill(thread, kick_signal());
}

void Vcpu::expect_exit() noexcept {
    std::atomic_ref(state().immediate_exit).store(1);
}

void Vcpu::clear_kick() noexcept {
    std::atomic_ref(state().immediate_exit).store(0);
}

void Vcpu::excuse_pause() noexcept {
    // EINVAL where the guest uses no kvmclock: nothing to excuse.
    static_cast<void>(::ioctl(fd(), KVM_KVMCLOCK_CTRL, 0));
}

void install_kick_handler() {
    struct sigaction action{};
    action.sa_handler = [](int) {};  // only there to make KVM_RUN return; no SA_RESTART
    ::sigemptyset(&action.sa_mask);
    ::sigaction(kick_signal(), &action, nullptr);
}

void prepare_vcpu_thread(unsigned index) {
    sigset_t all_but_kick;
    ::sigfillset(&all_but_kick);
    ::sigdelset(&all_but_kick, kick_signal());
    ::pthread_sigmask(SIG_SETMASK, &all_but_kick, nullptr);
    ::pthread_setname_np(::pthread_self(), fmt::format("vcpu{}", index).c_str());
}

}  // namespace masu::kvm

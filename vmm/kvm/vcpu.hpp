// One virtual CPU: its KVM descriptor and its registers. vcpu_set.hpp runs it.
#pragma once

#include <pthread.h>
#include "vmm/kvm/kvm_abi.hpp"

#include <atomic>
#include <cstddef>
#include <span>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "vmm/boot/cpu_state.hpp"
#include "vmm/kvm/cpuid.hpp"
#include "vmm/kvm/vm.hpp"

namespace masu::kvm {

// A vCPU without a thread. Used by one thread at a time, but for kick().
class Vcpu {
  public:
    // `index` is also the APIC id; 0 is the boot processor. The others wait for INIT-SIPI once run.
    [[nodiscard]] static Result<Vcpu> create(const Kvm& kvm, const Vm& vm, unsigned index);

    [[nodiscard]] Result<> set_cpuid(const CpuidLeaves& leaves);
    // MSRs and LAPIC as firmware leaves them.
    [[nodiscard]] Result<> set_boot_defaults();
    // The boot processor's registers at the kernel's entry point.
    [[nodiscard]] Result<> set_entry(const boot::EntryState& entry);
    [[nodiscard]] Result<kvm_regs> registers() const;
    // Of the guest's TSC; 0 where KVM cannot tell.
    [[nodiscard]] std::uint64_t tsc_khz() const noexcept;

    // KVM_RUN: 0, or the errno. After 0, state() tells why the guest was left.
    [[nodiscard]] int run() noexcept;
    // Makes the current or the next run() return EINTR. Any thread; `thread` is the one that runs
    // this vCPU, and it has been through prepare_vcpu_thread().
    void kick(pthread_t thread) noexcept;
    // The next run() only completes the exit before, and returns EINTR. For the running thread.
    void expect_exit() noexcept;
    // Ends the effect of kick() and expect_exit().
    void clear_kick() noexcept;
    // Tells kvmclock that the guest was stopped, so that its watchdogs forgive the gap.
    void excuse_pause() noexcept;

    [[nodiscard]] unsigned index() const noexcept { return index_; }
    [[nodiscard]] int fd() const noexcept { return fd_.get(); }
    [[nodiscard]] kvm_run& state() noexcept;
    // The whole mapping that starts with state().
    [[nodiscard]] std::span<std::byte> page() noexcept { return run_.bytes(); }

  private:
    Vcpu(Fd fd, Mapping run, unsigned index) noexcept
        : fd_(std::move(fd)), run_(std::move(run)), index_(index) {}
    Fd fd_;
    Mapping run_;
    unsigned index_;
};

// The process's handler of the kick signal (SIGRTMIN). Idempotent; before the first kick().
void install_kick_handler();
// Names the calling thread and leaves it no signal but the kick.
void prepare_vcpu_thread(unsigned index);

}  // namespace masu::kvm

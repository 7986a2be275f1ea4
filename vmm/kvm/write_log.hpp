// Which pages of guest memory were written: KVM's dirty log and the devices' own, as one.
#pragma once

#include "base/result.hpp"
#include "devices/dirty_pages.hpp"
#include "devices/guest_memory.hpp"
#include "vmm/kvm/kvm.hpp"
#include "vmm/kvm/vm.hpp"
#include "vmm/page_set.hpp"

namespace masu::kvm {

// Off at first. start() and stop() are for the thread that owns the machine; collect() for any one
// thread at a time, also while the guest runs. What is given lives longer.
class WriteLog {
  public:
    WriteLog(const Kvm& kvm, Vm& vm, const GuestMemory& memory, DirtyPages& devices)
        : kvm_(kvm), vm_(vm), memory_(memory), devices_(devices) {}

    // Everything written from now on will be collected. Each page's next write by a vCPU costs a
    // fault, and huge pages are split. Idempotent.
    [[nodiscard]] Result<> start();
    [[nodiscard]] Result<> stop();
    [[nodiscard]] bool on() const noexcept { return on_; }

    // Adds to `into` what was written since the last time. A page that is copied afterwards is
    // either up to date then, or will be collected again. After an error what was written is not
    // known any more: only a whole save is right then.
    [[nodiscard]] Result<> collect(PageSet& into);

  private:
    [[nodiscard]] Result<> protect_again(unsigned region, std::uint64_t pages,
                                         std::span<const std::uint64_t> words);

    const Kvm& kvm_;
    Vm& vm_;
    const GuestMemory& memory_;
    DirtyPages& devices_;
    bool on_ = false;
    bool manual_ = false;
};

}  // namespace masu::kvm

// A VM before it has memory and devices: as much as a restore can make ahead of its time.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "vmm/kvm/cpuid.hpp"
#include "vmm/kvm/kvm.hpp"
#include "vmm/kvm/vcpu_set.hpp"
#include "vmm/kvm/vm.hpp"

namespace masu::kvm {

// Declared so that default destruction is right: vCPUs, the VM, the device.
struct EmptyVm {
    // What its vCPUs' threads work with; metrics and timer are borrowed.
    struct Threads {
        Metrics& metrics;
        BootTimer& boot_timer;
        jail::FilterMode filters = jail::FilterMode::Off;
    };
    // One vCPU, and its thread, for each of `shown`, which is the CPUID its guest knows; `smt` says
    // how they are laid out. Fails where this host's CPU has not all of that.
    [[nodiscard]] static Result<EmptyVm> create(std::vector<CpuidLeaves> shown, bool smt,
                                                const Threads& threads);

    Kvm kvm;
    std::unique_ptr<Vm> vm;
    std::vector<CpuidLeaves> cpuid;  // by vCPU, which has it
    std::unique_ptr<VcpuSet> vcpus;
};

}  // namespace masu::kvm

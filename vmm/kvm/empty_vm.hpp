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
    // The CPUs that a guest knows: the CPUID of each, how they are laid out, and the host that
    // offered all of it (see host_identity()), if that is known.
    struct ShownCpus {
        std::vector<CpuidLeaves> cpuid;
        bool smt = false;
        std::string host;
    };
    // One vCPU, and its thread, for each of them. Fails where this host's CPU has not all that they
    // have. Where theirs is this host KVM is not asked: below another hypervisor it spends more
    // time on the answer than on making a vCPU.
    [[nodiscard]] static Result<EmptyVm> create(ShownCpus cpus, const Threads& threads);

    Kvm kvm;
    std::unique_ptr<Vm> vm;
    std::vector<CpuidLeaves> cpuid;  // by vCPU, which has it
    std::unique_ptr<VcpuSet> vcpus;
};

}  // namespace masu::kvm

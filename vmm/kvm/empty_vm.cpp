#include "vmm/kvm/empty_vm.hpp"

#include "vmm/kvm/cpu_features.hpp"
#include "vmm/kvm/host_identity.hpp"

namespace masu::kvm {
namespace {

// Against a host of no template: one of another version might hide what this guest has been shown.
Result<> check_host(const Kvm& kvm, const CpuidLeaves& shown, const CpuTopology& topology) {
    const CpuidPolicy policy{.topology = topology,
                             .tsc_deadline = kvm.capability(KVM_CAP_TSC_DEADLINE_TIMER) > 0};
    const auto missing = missing_features(shown, make_cpuid(TRY(kvm.supported_cpuid()), policy, 0));
    if (!missing.empty())
        return fail(
            "this host's CPU lacks what the snapshot's guest was shown: {}; restore it on "
            "a host that has them",
            fmt::join(missing, ", "));
    return {};
}

}  // namespace

Result<EmptyVm> EmptyVm::create(ShownCpus cpus, const Threads& threads) {
    auto& shown = cpus.cpuid;
    auto kvm = TRY(Kvm::open());
    const bool known = !cpus.host.empty() && cpus.host == host_identity(kvm);
    if (!shown.empty() && !known)
        TRY(check_host(kvm, shown.front(),
                       {.vcpu_count = static_cast<unsigned>(shown.size()), .smt = cpus.smt}));
    auto vm = TRY(Vm::create(kvm));
    std::vector<Vcpu> vcpus;
    for (unsigned index = 0; index < shown.size(); ++index) {
        auto vcpu = TRY(Vcpu::create(kvm, *vm, index));
        TRY(vcpu.set_cpuid(shown[index]));
        vcpus.push_back(std::move(vcpu));
    }
    auto set = TRY(
        VcpuSet::create(std::move(vcpus), threads.metrics, threads.boot_timer, threads.filters));
    return EmptyVm{std::move(kvm), std::move(vm), std::move(shown), std::move(set)};
}

}  // namespace masu::kvm

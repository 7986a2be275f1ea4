#include <doctest/doctest.h>

#include "vmm/doctor_probe.hpp"
#include "vmm/kvm/kvm.hpp"

using namespace masu;

TEST_CASE("the probe tells KVM on the CPU from KVM that interprets") {
    const auto probe = probe_kvm();
    const auto cpuinfo = kvm::read_cpuinfo();
    const bool has_virtualization =
        kvm::has_cpu_flag(cpuinfo, "vmx") || kvm::has_cpu_flag(cpuinfo, "svm");
    INFO(probe.verdict);
    CHECK(probe.kind == (has_virtualization ? KvmKind::Hardware : KvmKind::Software));
    CHECK(probe.remedy.empty() == (probe.kind == KvmKind::Hardware));
    CHECK(probe.details.size() == 4);
}

TEST_CASE("a device that is no KVM is unusable, and one that is not there absent") {
    CHECK(probe_kvm("/dev/null").kind == KvmKind::Unusable);
    const auto absent = probe_kvm("/dev/no-such-kvm");
    CHECK(absent.kind == KvmKind::Absent);
    CHECK_FALSE(absent.remedy.empty());
}

// CPU templates: guests are shown the same CPU on every host of a class, so that their snapshots
// can be restored on each of them. Pure functions over CPUID leaves.
#pragma once

#include "vmm/kvm/kvm_abi.hpp"

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/config.hpp"
#include "vmm/kvm/cpuid.hpp"

namespace masu::kvm {

// The name in options, the API and manifests: "host", "x86-64-v2", ...
[[nodiscard]] std::string_view to_string(CpuTemplate model);

// The features of the template's psABI level that `supported` lacks, by name; empty when it can be
// used on this host.
[[nodiscard]] std::vector<std::string> missing_for(std::span<const kvm_cpuid_entry2> supported,
                                                   CpuTemplate model);

// `supported` (KVM_GET_SUPPORTED_CPUID) less all that is not the template's, with its model number
// and brand; as it is for CpuTemplate::Host. What make_cpuid() adds of itself, KVM has on every
// host.
[[nodiscard]] CpuidLeaves apply_template(std::span<const kvm_cpuid_entry2> supported,
                                         CpuTemplate model);

// The highest psABI level whose features the leaves show; nothing when they do not reach v2.
[[nodiscard]] std::optional<CpuTemplate> level_of(std::span<const kvm_cpuid_entry2> leaves);

}  // namespace masu::kvm

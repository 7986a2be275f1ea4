// CPUID's words of feature bits: their names, and whether one CPU has what another shows.
#pragma once

#include "vmm/kvm/kvm_abi.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace masu::kvm {

enum class CpuidRegister : std::uint8_t { Eax, Ebx, Ecx, Edx };

// The register of that leaf and subleaf; 0 where there is no such leaf.
[[nodiscard]] std::uint32_t read_cpuid(std::span<const kvm_cpuid_entry2> leaves,
                                       std::uint32_t function, std::uint32_t index,
                                       CpuidRegister reg);

// As /proc/cpuinfo spells it ("avx512f"), or "CPUID 0x7.0 EBX bit 30".
[[nodiscard]] std::string feature_name(std::uint32_t function, std::uint32_t index,
                                       CpuidRegister reg, unsigned bit);

// "GenuineIntel", "AuthenticAMD", ...; empty where there is no leaf 0.
[[nodiscard]] std::string cpu_vendor(std::span<const kvm_cpuid_entry2> leaves);

// What the leaves use that `host` (as made for this VM on this host, of no template) does not
// offer, by name: features, the vendor, physical address bits, the place of a register set in the
// XSAVE area. Empty when the guest can go on here.
[[nodiscard]] std::vector<std::string> missing_features(std::span<const kvm_cpuid_entry2> saved,
                                                        std::span<const kvm_cpuid_entry2> host);

}  // namespace masu::kvm

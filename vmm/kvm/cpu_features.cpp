#include "vmm/kvm/cpu_features.hpp"

#include <array>
#include <cstring>

#include <fmt/format.h>

#include "vmm/kvm/cpuid.hpp"

namespace masu::kvm {

namespace {

using Register = CpuidRegister;

struct FeatureWord {
    std::uint32_t function;
    std::uint32_t index;
    Register reg;
    std::uint32_t ignored;  // bits that say nothing about what instructions there are
};

// Words of feature bits (Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E). Ignored: OSXSAVE and
// OSPKE, which follow the guest's CR4.
constexpr std::array words{
    FeatureWord{1, 0, Register::Ecx, 1U << 27},    FeatureWord{1, 0, Register::Edx, 0},
    FeatureWord{7, 0, Register::Ebx, 0},           FeatureWord{7, 0, Register::Ecx, 1U << 4},
    FeatureWord{7, 0, Register::Edx, 0},           FeatureWord{7, 1, Register::Eax, 0},
    FeatureWord{0xd, 0, Register::Eax, 0},         FeatureWord{0xd, 1, Register::Eax, 0},
    FeatureWord{0x8000'0001, 0, Register::Ecx, 0}, FeatureWord{0x8000'0001, 0, Register::Edx, 0},
    FeatureWord{0x8000'0008, 0, Register::Ebx, 0}, FeatureWord{0x4000'0001, 0, Register::Eax, 0},
};

struct Named {
    std::uint32_t function;
    Register reg;
    unsigned bit;
    const char* name;  // as /proc/cpuinfo spells it
};
constexpr std::array names{
    Named{1, Register::Ecx, 0, "pni"},
    Named{1, Register::Ecx, 1, "pclmulqdq"},
    Named{1, Register::Ecx, 9, "ssse3"},
    Named{1, Register::Ecx, 12, "fma"},
    Named{1, Register::Ecx, 13, "cx16"},
    Named{1, Register::Ecx, 17, "pcid"},
    Named{1, Register::Ecx, 19, "sse4_1"},
    Named{1, Register::Ecx, 20, "sse4_2"},
    Named{1, Register::Ecx, 21, "x2apic"},
    Named{1, Register::Ecx, 22, "movbe"},
    Named{1, Register::Ecx, 23, "popcnt"},
    Named{1, Register::Ecx, 24, "tsc_deadline_timer"},
    Named{1, Register::Ecx, 25, "aes"},
    Named{1, Register::Ecx, 26, "xsave"},
    Named{1, Register::Ecx, 28, "avx"},
    Named{1, Register::Ecx, 29, "f16c"},
    Named{1, Register::Ecx, 30, "rdrand"},
    Named{1, Register::Edx, 0, "fpu"},
    Named{1, Register::Edx, 1, "vme"},
    Named{1, Register::Edx, 2, "de"},
    Named{1, Register::Edx, 3, "pse"},
    Named{1, Register::Edx, 4, "tsc"},
    Named{1, Register::Edx, 5, "msr"},
    Named{1, Register::Edx, 6, "pae"},
    Named{1, Register::Edx, 7, "mce"},
    Named{1, Register::Edx, 8, "cx8"},
    Named{1, Register::Edx, 9, "apic"},
    Named{1, Register::Edx, 11, "sep"},
    Named{1, Register::Edx, 12, "mtrr"},
    Named{1, Register::Edx, 13, "pge"},
    Named{1, Register::Edx, 14, "mca"},
    Named{1, Register::Edx, 15, "cmov"},
    Named{1, Register::Edx, 16, "pat"},
    Named{1, Register::Edx, 17, "pse36"},
    Named{1, Register::Edx, 19, "clflush"},
    Named{1, Register::Edx, 23, "mmx"},
    Named{1, Register::Edx, 24, "fxsr"},
    Named{1, Register::Edx, 25, "sse"},
    Named{1, Register::Edx, 26, "sse2"},
    Named{1, Register::Edx, 27, "ss"},
    Named{1, Register::Edx, 28, "ht"},
    Named{7, Register::Ebx, 0, "fsgsbase"},
    Named{7, Register::Ebx, 1, "tsc_adjust"},
    Named{7, Register::Ebx, 3, "bmi1"},
    Named{7, Register::Ebx, 4, "hle"},
    Named{7, Register::Ebx, 5, "avx2"},
    Named{7, Register::Ebx, 7, "smep"},
    Named{7, Register::Ebx, 8, "bmi2"},
    Named{7, Register::Ebx, 9, "erms"},
    Named{7, Register::Ebx, 10, "invpcid"},
    Named{7, Register::Ebx, 11, "rtm"},
    Named{7, Register::Ebx, 14, "mpx"},
    Named{7, Register::Ebx, 16, "avx512f"},
    Named{7, Register::Ebx, 17, "avx512dq"},
    Named{7, Register::Ebx, 18, "rdseed"},
    Named{7, Register::Ebx, 19, "adx"},
    Named{7, Register::Ebx, 20, "smap"},
    Named{7, Register::Ebx, 21, "avx512ifma"},
    Named{7, Register::Ebx, 23, "clflushopt"},
    Named{7, Register::Ebx, 24, "clwb"},
    Named{7, Register::Ebx, 28, "avx512cd"},
    Named{7, Register::Ebx, 29, "sha_ni"},
    Named{7, Register::Ebx, 30, "avx512bw"},
    Named{7, Register::Ebx, 31, "avx512vl"},
    Named{7, Register::Ecx, 1, "avx512vbmi"},
    Named{7, Register::Ecx, 2, "umip"},
    Named{7, Register::Ecx, 3, "pku"},
    Named{7, Register::Ecx, 6, "avx512_vbmi2"},
    Named{7, Register::Ecx, 8, "gfni"},
    Named{7, Register::Ecx, 9, "vaes"},
    Named{7, Register::Ecx, 10, "vpclmulqdq"},
    Named{7, Register::Ecx, 11, "avx512_vnni"},
    Named{7, Register::Ecx, 12, "avx512_bitalg"},
    Named{7, Register::Ecx, 14, "avx512_vpopcntdq"},
    Named{7, Register::Ecx, 16, "la57"},
    Named{7, Register::Ecx, 22, "rdpid"},
    Named{7, Register::Edx, 10, "md_clear"},
    Named{7, Register::Edx, 22, "amx_bf16"},
    Named{7, Register::Edx, 23, "avx512_fp16"},
    Named{7, Register::Edx, 24, "amx_tile"},
    Named{7, Register::Edx, 25, "amx_int8"},
    Named{7, Register::Edx, 26, "spec_ctrl"},
    Named{7, Register::Edx, 27, "stibp"},
    Named{7, Register::Edx, 28, "flush_l1d"},
    Named{7, Register::Edx, 29, "arch_capabilities"},
    Named{7, Register::Edx, 31, "ssbd"},
    Named{0x8000'0001, Register::Ecx, 0, "lahf_lm"},
    Named{0x8000'0001, Register::Ecx, 4, "cr8_legacy"},
    Named{0x8000'0001, Register::Ecx, 5, "abm"},
    Named{0x8000'0001, Register::Ecx, 6, "sse4a"},
    Named{0x8000'0001, Register::Ecx, 7, "misalignsse"},
    Named{0x8000'0001, Register::Ecx, 8, "3dnowprefetch"},
    Named{0x8000'0001, Register::Ecx, 22, "topoext"},
    Named{0x8000'0001, Register::Edx, 11, "syscall"},
    Named{0x8000'0001, Register::Edx, 20, "nx"},
    Named{0x8000'0001, Register::Edx, 22, "mmxext"},
    Named{0x8000'0001, Register::Edx, 25, "fxsr_opt"},
    Named{0x8000'0001, Register::Edx, 26, "pdpe1gb"},
    Named{0x8000'0001, Register::Edx, 27, "rdtscp"},
    Named{0x8000'0001, Register::Edx, 29, "lm"},
    Named{0x8000'0008, Register::Ebx, 0, "clzero"},
    Named{0x8000'0008, Register::Ebx, 12, "ibpb"},
    Named{0x8000'0008, Register::Ebx, 14, "ibrs"},
    Named{0x8000'0008, Register::Ebx, 15, "amd_stibp"},
    Named{0x8000'0008, Register::Ebx, 24, "amd_ssbd"},
    Named{0x4000'0001, Register::Eax, 0, "kvm_clocksource"},
    Named{0x4000'0001, Register::Eax, 3, "kvm_clocksource2"},
    Named{0x4000'0001, Register::Eax, 7, "kvm_pv_unhalt"},
    Named{0x4000'0001, Register::Eax, 24, "kvm_clocksource_stable"},
};

constexpr std::uint32_t leaf_xsave = 0xd;
constexpr std::uint32_t leaf_address_sizes = 0x8000'0008;
constexpr unsigned first_extended_component = 2;  // those before lie at fixed places
constexpr unsigned xsave_components = 32;

// A guest saves each register set where its CPUID said that it lies.
void compare_xsave_layout(std::span<const kvm_cpuid_entry2> saved,
                          std::span<const kvm_cpuid_entry2> host,
                          std::vector<std::string>& missing) {
    const auto shown = read_cpuid(saved, leaf_xsave, 0, Register::Eax) &
                       read_cpuid(host, leaf_xsave, 0, Register::Eax);
    for (unsigned component = first_extended_component; component < xsave_components; ++component) {
        if ((shown >> component & 1) == 0)
            continue;
        const auto there = read_cpuid(saved, leaf_xsave, component, Register::Ebx);
        const auto here = read_cpuid(host, leaf_xsave, component, Register::Ebx);
        if (there != here || read_cpuid(saved, leaf_xsave, component, Register::Eax) !=
                                 read_cpuid(host, leaf_xsave, component, Register::Eax))
            missing.push_back(
                fmt::format("register set {} of the XSAVE area at byte {} (it has it at {}, or of "
                            "another size)",
                            component, there, here));
    }
}

void compare_address_bits(std::span<const kvm_cpuid_entry2> saved,
                          std::span<const kvm_cpuid_entry2> host,
                          std::vector<std::string>& missing) {
    const auto there = read_cpuid(saved, leaf_address_sizes, 0, Register::Eax) & 0xff;
    const auto here = read_cpuid(host, leaf_address_sizes, 0, Register::Eax) & 0xff;
    if (there > here && here != 0)
        missing.push_back(fmt::format("{} physical address bits (it has {})", there, here));
}

}  // namespace

std::uint32_t read_cpuid(std::span<const kvm_cpuid_entry2> leaves, std::uint32_t function,
                         std::uint32_t index, CpuidRegister reg) {
    const auto* leaf = find_leaf(leaves, function, index);
    if (leaf == nullptr)
        return 0;
    switch (reg) {
        case Register::Eax:
            return leaf->eax;
        case Register::Ebx:
            return leaf->ebx;
        case Register::Ecx:
            return leaf->ecx;
        case Register::Edx:
            break;
    }
    return leaf->edx;
}

std::string feature_name(std::uint32_t function, std::uint32_t index, CpuidRegister reg,
                         unsigned bit) {
    for (const auto& named : names)
        if (index == 0 && named.function == function && named.reg == reg && named.bit == bit)
            return named.name;
    constexpr std::array<const char*, 4> registers{"EAX", "EBX", "ECX", "EDX"};
    return fmt::format("CPUID {:#x}.{} {} bit {}", function, index,
                       registers[static_cast<std::size_t>(reg)], bit);
}

std::string cpu_vendor(std::span<const kvm_cpuid_entry2> leaves) {
    const auto* leaf = find_leaf(leaves, 0);
    if (leaf == nullptr)
        return {};
    std::string vendor(12, '\0');
    std::memcpy(vendor.data(), &leaf->ebx, 4);
    std::memcpy(vendor.data() + 4, &leaf->edx, 4);
    std::memcpy(vendor.data() + 8, &leaf->ecx, 4);
    return vendor;
}

std::vector<std::string> missing_features(std::span<const kvm_cpuid_entry2> saved,
                                          std::span<const kvm_cpuid_entry2> host) {
    std::vector<std::string> missing;
    if (cpu_vendor(saved) != cpu_vendor(host))
        missing.push_back("a CPU made by " + cpu_vendor(saved));
    for (const auto& [function, index, reg, ignored] : words) {
        const auto lacking = read_cpuid(saved, function, index, reg) &
                             ~read_cpuid(host, function, index, reg) & ~ignored;
        for (unsigned bit = 0; bit < 32; ++bit)
            if ((lacking >> bit & 1) != 0)
                missing.push_back(feature_name(function, index, reg, bit));
    }
    compare_xsave_layout(saved, host, missing);
    compare_address_bits(saved, host, missing);
    return missing;
}

}  // namespace masu::kvm

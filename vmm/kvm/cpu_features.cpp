// Whether a guest that was shown one CPU can go on with another.
#include <array>

#include "vmm/kvm/vcpu_state.hpp"

namespace masu::kvm {

namespace {

enum class Register : std::uint8_t { Eax, Ebx, Ecx, Edx };

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
    Named{7, Register::Ebx, 0, "fsgsbase"},
    Named{7, Register::Ebx, 1, "tsc_adjust"},
    Named{7, Register::Ebx, 3, "bmi1"},
    Named{7, Register::Ebx, 5, "avx2"},
    Named{7, Register::Ebx, 7, "smep"},
    Named{7, Register::Ebx, 8, "bmi2"},
    Named{7, Register::Ebx, 9, "erms"},
    Named{7, Register::Ebx, 10, "invpcid"},
    Named{7, Register::Ebx, 16, "avx512f"},
    Named{7, Register::Ebx, 17, "avx512dq"},
    Named{7, Register::Ebx, 18, "rdseed"},
    Named{7, Register::Ebx, 19, "adx"},
    Named{7, Register::Ebx, 20, "smap"},
    Named{7, Register::Ebx, 21, "avx512ifma"},
    Named{7, Register::Ebx, 24, "clwb"},
    Named{7, Register::Ebx, 28, "avx512cd"},
    Named{7, Register::Ebx, 29, "sha_ni"},
    Named{7, Register::Ebx, 30, "avx512bw"},
    Named{7, Register::Ebx, 31, "avx512vl"},
    Named{7, Register::Ecx, 2, "umip"},
    Named{7, Register::Ecx, 3, "pku"},
    Named{7, Register::Ecx, 8, "gfni"},
    Named{7, Register::Ecx, 9, "vaes"},
    Named{7, Register::Ecx, 10, "vpclmulqdq"},
    Named{7, Register::Ecx, 16, "la57"},
    Named{7, Register::Ecx, 22, "rdpid"},
    Named{7, Register::Edx, 24, "amx_tile"},
    Named{0x8000'0001, Register::Ecx, 0, "lahf_lm"},
    Named{0x8000'0001, Register::Ecx, 5, "abm"},
    Named{0x8000'0001, Register::Ecx, 6, "sse4a"},
    Named{0x8000'0001, Register::Edx, 20, "nx"},
    Named{0x8000'0001, Register::Edx, 26, "pdpe1gb"},
    Named{0x8000'0001, Register::Edx, 27, "rdtscp"},
};

std::uint32_t word_of(std::span<const kvm_cpuid_entry2> leaves, const FeatureWord& word) {
    const auto* leaf = find_leaf(leaves, word.function, word.index);
    if (leaf == nullptr)
        return 0;
    switch (word.reg) {
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

std::string name_of(const FeatureWord& word, unsigned bit) {
    for (const auto& named : names)
        if (word.index == 0 && named.function == word.function && named.reg == word.reg &&
            named.bit == bit)
            return named.name;
    constexpr std::array<const char*, 4> registers{"EAX", "EBX", "ECX", "EDX"};
    return fmt::format("CPUID {:#x}.{} {} bit {}", word.function, word.index,
                       registers[static_cast<std::size_t>(word.reg)], bit);
}

std::string vendor_of(std::span<const kvm_cpuid_entry2> leaves) {
    const auto* leaf = find_leaf(leaves, 0);
    if (leaf == nullptr)
        return {};
    std::string vendor(12, '\0');
    std::memcpy(vendor.data(), &leaf->ebx, 4);
    std::memcpy(vendor.data() + 4, &leaf->edx, 4);
    std::memcpy(vendor.data() + 8, &leaf->ecx, 4);
    return vendor;
}

}  // namespace

std::vector<std::string> missing_features(std::span<const kvm_cpuid_entry2> saved,
                                          std::span<const kvm_cpuid_entry2> host) {
    std::vector<std::string> missing;
    if (vendor_of(saved) != vendor_of(host))
        missing.push_back("a CPU made by " + vendor_of(saved));
    for (const auto& word : words) {
        const auto lacking = word_of(saved, word) & ~word_of(host, word) & ~word.ignored;
        for (unsigned bit = 0; bit < 32; ++bit)
            if ((lacking >> bit & 1) != 0)
                missing.push_back(name_of(word, bit));
    }
    return missing;
}

}  // namespace masu::kvm

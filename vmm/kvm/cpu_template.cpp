#include "vmm/kvm/cpu_template.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include <fmt/format.h>

#include "vmm/kvm/cpu_features.hpp"

namespace masu::kvm {

namespace {

using Register = CpuidRegister;

template <class... Numbers>
constexpr std::uint32_t bits(Numbers... numbers) {
    return ((1U << numbers) | ... | 0U);
}

// One register of feature bits. `level`: what the level adds to the one before (System V ABI for
// AMD64, section "Micro-architecture levels"); a host without it is refused. `beside`: what the
// CPUs of the level that KVM runs on have as well, of either vendor, and a kernel makes use of;
// shown where the host has it, needed from then on.
struct TemplateWord {
    CpuTemplate since;
    std::uint32_t function;
    std::uint32_t index;
    Register reg;
    std::uint32_t level;
    std::uint32_t beside;
};

constexpr auto v2 = CpuTemplate::X86_64_v2;
constexpr auto v3 = CpuTemplate::X86_64_v3;
constexpr auto v4 = CpuTemplate::X86_64_v4;

constexpr std::uint32_t leaf_features = 1;
constexpr std::uint32_t leaf_structured = 7;
constexpr std::uint32_t leaf_xsave = 0xd;
constexpr std::uint32_t leaf_kvm = 0x4000'0001;
constexpr std::uint32_t leaf_extended_max = 0x8000'0000;
constexpr std::uint32_t leaf_extended = 0x8000'0001;
constexpr std::uint32_t leaf_brand = 0x8000'0002;  // and the two after it
constexpr std::uint32_t leaf_address_sizes = 0x8000'0008;
constexpr std::uint32_t leaf_amd_caches = 0x8000'001d;
constexpr std::uint32_t leaf_amd_topology = 0x8000'001e;
// Leaf 1's EDX in AMD's own leaf.
constexpr std::uint32_t amd_copies = 0x0183'f3ff;

constexpr std::array words{
    // fpu cx8 cmov mmx fxsr sse sse2; vme de pse tsc msr pae mce apic sep mtrr pge mca pat pse36
    // clflush
    TemplateWord{v2, leaf_features, 0, Register::Edx, bits(0, 8, 15, 23, 24, 25, 26),
                 bits(1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 13, 14, 16, 17, 19)},
    // sse3 ssse3 cx16 sse4_1 sse4_2 popcnt
    TemplateWord{v2, leaf_features, 0, Register::Ecx, bits(0, 9, 13, 19, 20, 23), 0},
    // tsc_adjust, which KVM provides
    TemplateWord{v2, leaf_structured, 0, Register::Ebx, 0, bits(1)},
    // md_clear spec_ctrl stibp ssbd (Intel)
    TemplateWord{v2, leaf_structured, 0, Register::Edx, 0, bits(10, 26, 27, 31)},
    // lahf_lm; topoext (AMD)
    TemplateWord{v2, leaf_extended, 0, Register::Ecx, bits(0), bits(22)},
    // syscall lm; nx rdtscp
    TemplateWord{v2, leaf_extended, 0, Register::Edx, bits(11, 29), bits(20, 27) | amd_copies},
    // ibpb
    TemplateWord{v2, leaf_address_sizes, 0, Register::Ebx, 0, bits(12)},
    // What KVM of Linux 5.10 and later offers its guests: clocks, no I/O delay, asynchronous page
    // faults, EOI, unhalt, TLB flush, IPIs, polling, yielding.
    TemplateWord{v2, leaf_kvm, 0, Register::Eax, 0, bits(0, 1, 3, 4, 6, 7, 9, 11, 12, 13, 14, 24)},

    // fma movbe xsave avx f16c; pclmulqdq aes rdrand
    TemplateWord{v3, leaf_features, 0, Register::Ecx, bits(12, 22, 26, 28, 29), bits(1, 25, 30)},
    // bmi1 avx2 bmi2; fsgsbase smep
    TemplateWord{v3, leaf_structured, 0, Register::Ebx, bits(3, 5, 8), bits(0, 7)},
    // XCR0: x87 SSE AVX
    TemplateWord{v3, leaf_xsave, 0, Register::Eax, bits(0, 1, 2), 0},
    // xsaveopt
    TemplateWord{v3, leaf_xsave, 1, Register::Eax, 0, bits(0)},
    // lzcnt
    TemplateWord{v3, leaf_extended, 0, Register::Ecx, bits(5), 0},
    // pdpe1gb
    TemplateWord{v3, leaf_extended, 0, Register::Edx, 0, bits(26)},

    // pcid
    TemplateWord{v4, leaf_features, 0, Register::Ecx, 0, bits(17)},
    // avx512f dq cd bw vl; erms invpcid rdseed adx smap clflushopt clwb
    TemplateWord{v4, leaf_structured, 0, Register::Ebx, bits(16, 17, 28, 30, 31),
                 bits(9, 10, 18, 19, 20, 23, 24)},
    // umip pku
    TemplateWord{v4, leaf_structured, 0, Register::Ecx, 0, bits(2, 3)},
    // XCR0: opmask, ZMM; PKRU
    TemplateWord{v4, leaf_xsave, 0, Register::Eax, bits(5, 6, 7), bits(9)},
    // xsavec xgetbv1
    TemplateWord{v4, leaf_xsave, 1, Register::Eax, 0, bits(1, 2)},
    // prefetchw
    TemplateWord{v4, leaf_extended, 0, Register::Ecx, 0, bits(8)},
};

// Of that register, all that the template has.
std::uint32_t mask_of(CpuTemplate model, std::uint32_t function, std::uint32_t index,
                      Register reg) {
    std::uint32_t mask = 0;
    for (const auto& word : words)
        if (word.since <= model && word.function == function && word.index == index &&
            word.reg == reg)
            mask |= word.level | word.beside;
    return mask;
}

// The CPU that a guest's kernel chooses its precautions for. Intel: the one among those that KVM
// still runs on that needs most of them (Skylake-SP); AMD: the first with the level of its kind,
// since its generations need different ones (Zen, Zen 4). Others keep their number.
std::uint32_t signature_of(std::string_view vendor, CpuTemplate model, std::uint32_t own) {
    constexpr std::uint32_t skylake_sp = 0x0005'0654, zen = 0x0080'0f12, zen4 = 0x00a1'0f11;
    if (vendor == "GenuineIntel")
        return skylake_sp;
    if (vendor == "AuthenticAMD")
        return model == v4 ? zen4 : zen;
    return own;
}

class Masking {
  public:
    Masking(std::span<const kvm_cpuid_entry2> supported, CpuTemplate model)
        : supported_(supported), model_(model), vendor_(cpu_vendor(supported)) {
        xcr0_ = masked(leaf_xsave, 0, Register::Eax);
        // Protection keys are in both words or in neither.
        constexpr std::uint32_t pku = bits(3);
        if ((xcr0_ & pkru) == 0 || (masked(leaf_structured, 0, Register::Ecx) & pku) == 0) {
            xcr0_ &= ~pkru;
            hidden_structured_ecx_ = pku;
        }
    }

    // The leaf as the template shows it; false: not at all.
    [[nodiscard]] bool apply(kvm_cpuid_entry2& leaf) const {
        switch (leaf.function) {
            case 0:
                leaf.eax = leaf_xsave;
                return true;
            case leaf_features:
                leaf.eax = signature_of(vendor_, model_, leaf.eax);
                leaf.ecx &= mask(leaf, Register::Ecx);
                leaf.edx &= mask(leaf, Register::Edx);
                return true;
            case leaf_structured:
                leaf.eax = 0;  // no more subleaves
                leaf.ebx &= mask(leaf, Register::Ebx);
                leaf.ecx &= mask(leaf, Register::Ecx) & ~hidden_structured_ecx_;
                leaf.edx &= mask(leaf, Register::Edx);
                return leaf.index == 0;
            case leaf_xsave:
                return apply_xsave(leaf);
            case leaf_kvm:
                leaf.eax &= mask(leaf, Register::Eax);
                leaf.edx = 0;
                return true;
            case leaf_extended_max:
                leaf.eax = std::min(leaf.eax, amd() ? leaf_amd_topology : leaf_address_sizes);
                return true;
            case leaf_extended:
                leaf.eax = amd() ? signature_of(vendor_, model_, leaf.eax) : leaf.eax;
                leaf.ecx &= mask(leaf, Register::Ecx);
                leaf.edx &= mask(leaf, Register::Edx);
                return true;
            case leaf_brand:
            case leaf_brand + 1:
            case leaf_brand + 2:
                put_brand(leaf);
                return true;
            case leaf_address_sizes:
                apply_address_sizes(leaf);
                return true;
            default:
                return is_kept(leaf.function);
        }
    }

  private:
    static constexpr std::uint32_t pkru = bits(9);
    static constexpr std::uint32_t legacy_area = 576;  // x87, SSE and the XSAVE header

    [[nodiscard]] bool amd() const {
        return vendor_ == "AuthenticAMD" || vendor_ == "HygonGenuine";
    }
    [[nodiscard]] std::uint32_t mask(const kvm_cpuid_entry2& leaf, Register reg) const {
        return mask_of(model_, leaf.function, leaf.index, reg);
    }
    [[nodiscard]] std::uint32_t masked(std::uint32_t function, std::uint32_t index,
                                       Register reg) const {
        return read_cpuid(supported_, function, index, reg) & mask_of(model_, function, index, reg);
    }

    // What the sizes and places of caches are, the LAPIC, hypervisor and topology leaves: nothing a
    // program is compiled for. The rest tells of features that no template has.
    [[nodiscard]] bool is_kept(std::uint32_t function) const {
        constexpr std::uint32_t kvm_signature = 0x4000'0000;
        constexpr std::array<std::uint32_t, 7> kept{2,           4,          6, 0xb, kvm_signature,
                                                    0x8000'0005, 0x8000'0006};
        return std::ranges::find(kept, function) != kept.end() ||
               (amd() && (function == leaf_amd_caches || function == leaf_amd_topology));
    }

    // Of the register sets shown, the end of the one that lies last.
    [[nodiscard]] std::uint32_t area_size() const {
        std::uint32_t size = legacy_area;
        for (unsigned component = 2; component < 32; ++component)
            if ((xcr0_ >> component & 1) != 0)
                size = std::max(size,
                                read_cpuid(supported_, leaf_xsave, component, Register::Ebx) +
                                    read_cpuid(supported_, leaf_xsave, component, Register::Eax));
        return size;
    }

    // Subleaf 0: XCR0 and sizes; 1: instructions; from 2: one register set each. KVM keeps the
    // sizes that follow XCR0 up to date.
    [[nodiscard]] bool apply_xsave(kvm_cpuid_entry2& leaf) const {
        if (xcr0_ == 0)
            return false;
        if (leaf.index == 0) {
            leaf.eax = xcr0_;
            leaf.ebx = legacy_area;
            leaf.ecx = area_size();
            leaf.edx = 0;
            return true;
        }
        if (leaf.index == 1) {
            constexpr std::uint32_t xsavec = bits(1);
            leaf.eax &= mask(leaf, Register::Eax);
            leaf.ebx = (leaf.eax & xsavec) != 0 ? legacy_area : 0;
            leaf.ecx = leaf.edx = 0;
            return true;
        }
        return leaf.index < 32 && (xcr0_ >> leaf.index & 1) != 0;
    }

    // 1 TiB holds all that a guest of ours has; Linux sizes its tables by these.
    void apply_address_sizes(kvm_cpuid_entry2& leaf) const {
        constexpr std::uint32_t physical_bits = 40, linear_bits = 48;
        leaf.eax = std::min(leaf.eax & 0xff, physical_bits) | linear_bits << 8;
        leaf.ebx &= mask(leaf, Register::Ebx);
        leaf.edx = 0;
    }

    void put_brand(kvm_cpuid_entry2& leaf) const {
        std::array<char, 48> brand{};
        const auto text = fmt::format("{} CPU template", to_string(model_));
        std::ranges::copy_n(text.begin(),
                            static_cast<std::ptrdiff_t>(std::min(text.size(), brand.size() - 1)),
                            brand.begin());
        std::array<std::uint32_t, 4> registers{};
        std::memcpy(registers.data(), brand.data() + (leaf.function - leaf_brand) * 16, 16);
        leaf.eax = registers[0];
        leaf.ebx = registers[1];
        leaf.ecx = registers[2];
        leaf.edx = registers[3];
    }

    std::span<const kvm_cpuid_entry2> supported_;
    CpuTemplate model_;
    std::string vendor_;
    std::uint32_t xcr0_ = 0;
    std::uint32_t hidden_structured_ecx_ = 0;
};

}  // namespace

std::string_view to_string(CpuTemplate model) {
    switch (model) {
        case CpuTemplate::Host:
            return "host";
        case CpuTemplate::X86_64_v2:
            return "x86-64-v2";
        case CpuTemplate::X86_64_v3:
            return "x86-64-v3";
        case CpuTemplate::X86_64_v4:
            return "x86-64-v4";
    }
    return "host";
}

std::vector<std::string> missing_for(std::span<const kvm_cpuid_entry2> supported,
                                     CpuTemplate model) {
    std::vector<std::string> missing;
    for (const auto& word : words) {
        const auto lacking =
            word.since <= model
                ? word.level & ~read_cpuid(supported, word.function, word.index, word.reg)
                : 0;
        for (unsigned bit = 0; bit < 32; ++bit)
            if ((lacking >> bit & 1) != 0)
                missing.push_back(feature_name(word.function, word.index, word.reg, bit));
    }
    return missing;
}

CpuidLeaves apply_template(std::span<const kvm_cpuid_entry2> supported, CpuTemplate model) {
    if (model == CpuTemplate::Host)
        return {supported.begin(), supported.end()};
    const Masking masking(supported, model);
    CpuidLeaves leaves;
    for (auto leaf : supported)
        if (masking.apply(leaf))
            leaves.push_back(leaf);
    return leaves;
}

std::optional<CpuTemplate> level_of(std::span<const kvm_cpuid_entry2> leaves) {
    for (const auto model : {v4, v3, v2})
        if (missing_for(leaves, model).empty())
            return model;
    return std::nullopt;
}

}  // namespace masu::kvm

#include "vmm/kvm/cpuid.hpp"

#include <algorithm>
#include <bit>

namespace masu::kvm {

namespace {

// Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E.
enum Leaf : std::uint32_t {
    leaf_vendor = 0x0,
    leaf_features = 0x1,
    leaf_intel_caches = 0x4,
    leaf_power = 0x6,
    leaf_structured = 0x7,
    leaf_pmu = 0xa,
    leaf_topology = 0xb,
    leaf_sgx = 0x12,
    leaf_pt = 0x14,
    leaf_topology_v2 = 0x1f,
    leaf_amd_features = 0x8000'0001,
    leaf_address_sizes = 0x8000'0008,
    leaf_svm = 0x8000'000a,
    leaf_ibs = 0x8000'001b,
    leaf_amd_caches = 0x8000'001d,
    leaf_amd_topology = 0x8000'001e,
    leaf_sev = 0x8000'001f,
    leaf_amd_pmu = 0x8000'0022,
    leaf_amd_topology_v2 = 0x8000'0026,
};

constexpr std::uint32_t bit(unsigned number) {
    return 1U << number;
}

// `value` with the `width` bits from `low` up replaced.
constexpr std::uint32_t with_field(std::uint32_t value, unsigned low, unsigned width,
                                   std::uint32_t field) {
    const std::uint32_t mask = ((1U << width) - 1) << low;
    return (value & ~mask) | ((field << low) & mask);
}

// The topology in the forms the leaves ask for.
struct Layout {
    std::uint32_t apic_id;
    std::uint32_t threads_per_core;
    std::uint32_t vcpus;
    unsigned thread_bits;   // of the APIC id, for the thread in its core
    unsigned package_bits;  // of the APIC id, for everything in the one package
    bool amd;

    [[nodiscard]] std::uint32_t sharing(std::uint32_t cache_level) const {
        return cache_level < 3 ? threads_per_core : vcpus;
    }
};

unsigned bits_for(std::uint32_t count) {
    return static_cast<unsigned>(std::bit_width(count - 1));
}

bool is_amd(std::span<const kvm_cpuid_entry2> leaves) {
    constexpr std::uint32_t authentic_amd = 0x6874'7541;  // "Auth"
    constexpr std::uint32_t hygon_genuine = 0x6f67'7948;  // "Hygo"
    const auto* const vendor = find_leaf(leaves, leaf_vendor);
    return vendor != nullptr && (vendor->ebx == authentic_amd || vendor->ebx == hygon_genuine);
}

void adjust_features(kvm_cpuid_entry2& leaf, const Layout& layout, bool tsc_deadline) {
    constexpr std::uint32_t monitor = bit(3), vmx = bit(5), smx = bit(6),
                            debug_store = bit(2) | bit(4), perf_capabilities = bit(15),
                            x2apic = bit(21), deadline = bit(24), os_xsave = bit(27),
                            hypervisor = bit(31), multi_threading = bit(28),
                            debug_store_edx = bit(21);
    const auto addressable = layout.amd ? layout.vcpus : 1U << layout.package_bits;
    leaf.ebx = with_field(leaf.ebx, 16, 8, addressable);
    leaf.ebx = with_field(leaf.ebx, 24, 8, layout.apic_id);
    leaf.ecx &= ~(monitor | vmx | smx | debug_store | perf_capabilities | deadline | os_xsave);
    leaf.ecx |= x2apic | hypervisor | (tsc_deadline ? deadline : 0);
    leaf.edx &= ~(multi_threading | debug_store_edx);
    leaf.edx |= layout.vcpus > 1 ? multi_threading : 0;
}

// Leaf 4 and AMD's 0x8000001D share their EAX.
void adjust_cache(kvm_cpuid_entry2& leaf, const Layout& layout) {
    if ((leaf.eax & 0x1f) == 0)
        return;  // no more caches
    const auto level = (leaf.eax >> 5) & 7;
    leaf.eax = with_field(leaf.eax, 14, 12, layout.sharing(level) - 1);
    if (leaf.function == leaf_intel_caches) {
        const auto core_ids = 1U << (layout.package_bits - layout.thread_bits);
        leaf.eax = with_field(leaf.eax, 26, 6, core_ids - 1);
    }
}

void adjust_amd_features(kvm_cpuid_entry2& leaf, const Layout& layout) {
    constexpr std::uint32_t cmp_legacy = bit(1), svm = bit(2), ibs = bit(10), skinit = bit(12),
                            watchdog = bit(13), lwp = bit(15),
                            perf_counters = bit(23) | bit(24) | bit(28), monitorx = bit(29);
    leaf.ecx &= ~(cmp_legacy | svm | ibs | skinit | watchdog | lwp | perf_counters | monitorx);
    leaf.ecx |= layout.amd && layout.vcpus > 1 ? cmp_legacy : 0;
}

void clear_registers(kvm_cpuid_entry2& leaf) {
    leaf.eax = leaf.ebx = leaf.ecx = leaf.edx = 0;
}

void adjust(kvm_cpuid_entry2& leaf, const Layout& layout, const CpuidPolicy& policy) {
    switch (leaf.function) {
        case leaf_vendor:
            leaf.eax = std::max<std::uint32_t>(leaf.eax, leaf_topology);
            break;
        case leaf_features:
            adjust_features(leaf, layout, policy.tsc_deadline);
            break;
        case leaf_intel_caches:
        case leaf_amd_caches:
            adjust_cache(leaf, layout);
            break;
        case leaf_power:
            // Only "the APIC timer always runs"; frequencies are the host's business.
            leaf.eax &= bit(2);
            leaf.ebx = leaf.ecx = leaf.edx = 0;
            break;
        case leaf_structured:
            if (leaf.index == 0) {
                leaf.ebx &= ~(bit(2) | bit(25));  // SGX, processor trace
                leaf.ecx &= ~bit(30);             // SGX launch control
            }
            break;
        case leaf_amd_features:
            adjust_amd_features(leaf, layout);
            break;
        case leaf_address_sizes:
            if (layout.amd) {
                leaf.ecx = with_field(0, 0, 8, layout.vcpus - 1);
                leaf.ecx = with_field(leaf.ecx, 12, 4, layout.package_bits);
            }
            break;
        case leaf_amd_topology:
            leaf.eax = layout.apic_id;
            leaf.ebx = layout.apic_id >> layout.thread_bits;
            leaf.ebx = with_field(leaf.ebx, 8, 8, layout.threads_per_core - 1);
            leaf.ecx = leaf.edx = 0;  // one node
            break;
        default:
            break;
    }
}

bool is_hidden(std::uint32_t function) {
    switch (function) {
        case leaf_pmu:
        case leaf_sgx:
        case leaf_pt:
        case leaf_svm:
        case leaf_ibs:
        case leaf_sev:
        case leaf_amd_pmu:
        case leaf_amd_topology_v2:
            return true;
        default:
            return false;
    }
}

// Leaves 0xB and 0x1F: a thread level, a core level, and the end.
void append_topology(CpuidLeaves& leaves, std::uint32_t function, const Layout& layout) {
    struct Level {
        std::uint32_t shift;
        std::uint32_t processors;
        std::uint32_t type;
    };
    const Level levels[]{{layout.thread_bits, layout.threads_per_core, 1},
                         {layout.package_bits, layout.vcpus, 2},
                         {0, 0, 0}};
    for (std::uint32_t index = 0; const auto& level : levels) {
        kvm_cpuid_entry2 leaf{};
        leaf.function = function;
        leaf.index = index;
        leaf.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        leaf.eax = level.shift;
        leaf.ebx = level.processors;
        leaf.ecx = level.type << 8 | index;
        leaf.edx = layout.apic_id;
        leaves.push_back(leaf);
        ++index;
    }
}

}  // namespace

CpuidLeaves make_cpuid(std::span<const kvm_cpuid_entry2> supported, const CpuidPolicy& policy,
                       std::uint32_t apic_id) {
    const auto vcpus = std::max(policy.topology.vcpu_count, 1U);
    const auto threads = policy.topology.smt && vcpus > 1 ? 2U : 1U;
    const Layout layout{.apic_id = apic_id,
                        .threads_per_core = threads,
                        .vcpus = vcpus,
                        .thread_bits = bits_for(threads),
                        .package_bits = bits_for(vcpus),
                        .amd = is_amd(supported)};
    CpuidLeaves leaves;
    leaves.reserve(supported.size() + 6);
    for (auto leaf : supported) {
        if (leaf.function == leaf_topology || leaf.function == leaf_topology_v2)
            continue;
        if (is_hidden(leaf.function))
            clear_registers(leaf);
        else
            adjust(leaf, layout, policy);
        leaves.push_back(leaf);
    }
    append_topology(leaves, leaf_topology, layout);
    if (find_leaf(supported, leaf_topology_v2) != nullptr)
        append_topology(leaves, leaf_topology_v2, layout);
    return leaves;
}

const kvm_cpuid_entry2* find_leaf(std::span<const kvm_cpuid_entry2> leaves, std::uint32_t function,
                                  std::uint32_t index) {
    const auto found = std::find_if(leaves.begin(), leaves.end(), [&](const auto& leaf) {
        const bool indexed = (leaf.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0;
        return leaf.function == function && (!indexed || leaf.index == index);
    });
    return found == leaves.end() ? nullptr : &*found;
}

}  // namespace masu::kvm

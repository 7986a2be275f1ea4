// CPU templates over what KVM supports on hosts of several makes and generations.
#include "vmm/kvm/cpu_template.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "tests/unit/vmm/kvm/cpuid_leaf.hpp"
#include "vmm/kvm/cpu_features.hpp"
#include "vmm/kvm/vcpu_state.hpp"

using namespace masu;
using namespace masu::kvm;

namespace {

using Register = CpuidRegister;

// "GenuineIntel" and "AuthenticAMD" as EBX, EDX, ECX.
kvm_cpuid_entry2 intel_vendor(std::uint32_t max) {
    return leaf(0, max, 0x756e'6547, 0x6c65'746e, 0x4965'6e69);
}
kvm_cpuid_entry2 amd_vendor(std::uint32_t max) {
    return leaf(0, max, 0x6874'7541, 0x444d'4163, 0x6974'6e65);
}

// Haswell-EP: AVX2, no SMAP, no AVX-512.
CpuidLeaves haswell() {
    return {intel_vendor(0xd),
            leaf(1, 0x306f2, 0x0020'0800, 0xfffa'3223, 0x1f8b'fbff),
            leaf(7, 0, 0x0000'27ab, 0x4, 0xac00'0400, 0),
            leaf(0xd, 0x7, 0x340, 0x340, 0, 0),
            leaf(0xd, 0x1, 0, 0, 0, 1),
            leaf(0xd, 0x100, 0x240, 0, 0, 2),
            leaf(0x4000'0001, 0x0100'7efb, 0, 0, 0),
            leaf(0x8000'0000, 0x8000'0008, 0, 0, 0),
            leaf(0x8000'0001, 0, 0, 0x21, 0x2c10'0800),
            leaf(0x8000'0002, 0x6574'6e49, 0x2952'286c, 0x6f65'5820, 0x2952'286e),
            leaf(0x8000'0007, 0, 0, 0, 0x100),
            leaf(0x8000'0008, 0x302e, 0x0100'd000, 0, 0)};
}

// Sapphire Rapids: AVX-512, protection keys, AMX, five-level paging, XSAVES.
CpuidLeaves sapphire_rapids() {
    return {intel_vendor(0x1f),
            leaf(1, 0x806f8, 0x0040'0800, 0xfffa'3223, 0x1f8b'fbff),
            leaf(7, 2, 0xf1bf'07ab, 0x1b41'5f5e, 0xbfd1'4410, 0),
            leaf(7, 0x1c30, 0, 0, 0, 1),
            leaf(7, 0, 0, 0, 0x17, 2),
            leaf(0xd, 0x602e7, 0x2b00, 0x2b00, 0, 0),
            leaf(0xd, 0x1f, 0x2680, 0x1800, 0, 1),
            leaf(0xd, 0x100, 0x240, 0, 0, 2),
            leaf(0xd, 0x40, 0x440, 0, 0, 5),
            leaf(0xd, 0x200, 0x480, 0, 0, 6),
            leaf(0xd, 0x400, 0x680, 0, 0, 7),
            leaf(0xd, 0x8, 0xa80, 0, 0, 9),
            leaf(0xd, 0x40, 0xac0, 2, 0, 17),
            leaf(0xd, 0x2000, 0xb00, 6, 0, 18),
            leaf(0x1d, 1, 0, 0, 0, 0),
            leaf(0x4000'0001, 0x0100'7efb, 0, 0, 0),
            leaf(0x8000'0000, 0x8000'0008, 0, 0, 0),
            leaf(0x8000'0001, 0, 0, 0x121, 0x2c10'0800),
            leaf(0x8000'0002, 0x6574'6e49, 0x2952'286c, 0x6f65'5820, 0x2952'286e),
            leaf(0x8000'0007, 0, 0, 0, 0x100),
            leaf(0x8000'0008, 0x3934, 0x0100'd200, 0, 0)};
}

// Zen 3: AVX2, no AVX-512; its leaves of its own.
CpuidLeaves milan() {
    return {amd_vendor(0x10),
            leaf(1, 0xa00f11, 0x0010'0800, 0xfef8'3203, 0x178b'fbff),
            leaf(7, 0, 0x219c'07ab, 0x0040'0f8c, 0xac00'0010, 0),
            leaf(0xd, 0x207, 0x988, 0x988, 0, 0),
            leaf(0xd, 0xf, 0x348, 0x1800, 0, 1),
            leaf(0xd, 0x100, 0x240, 0, 0, 2),
            leaf(0xd, 0x8, 0x980, 0, 0, 9),
            leaf(0x4000'0001, 0x0100'7efb, 0, 0, 0),
            leaf(0x8000'0000, 0x8000'0022, 0, 0, 0),
            leaf(0x8000'0001, 0xa00f11, 0x4000'0000, 0x00c0'03f3, 0x2fd3'fbff),
            leaf(0x8000'0002, 0x2044'4d41, 0x4359'5045, 0x3133'3737, 0x2033),
            leaf(0x8000'0007, 0, 0, 0, 0x100),
            leaf(0x8000'0008, 0x3030, 0x191e'd205, 0, 0),
            leaf(0x8000'001d, 0x121, 0x01c0'003f, 63, 0, 0),
            leaf(0x8000'001e, 0, 0, 0, 0),
            leaf(0x8000'0021, 0x45, 0, 0, 0)};
}

// What a guest of that host with that template sees.
CpuidLeaves shown(const CpuidLeaves& host, CpuTemplate model) {
    return make_cpuid(apply_template(host, model), {.topology = {2, false}}, 0);
}

// The host as a restore compares it.
CpuidLeaves offered(const CpuidLeaves& host) {
    return make_cpuid(host, {.topology = {2, false}}, 0);
}

bool has_leaf(const CpuidLeaves& leaves, std::uint32_t function, std::uint32_t index = 0) {
    return find_leaf(leaves, function, index) != nullptr;
}

bool names(const std::vector<std::string>& list, const char* name) {
    return std::ranges::find(list, name) != list.end();
}

}  // namespace

TEST_CASE("a guest of a template goes on on any host of its class, newer or older") {
    const auto saved = shown(sapphire_rapids(), CpuTemplate::X86_64_v3);
    CHECK(missing_features(saved, offered(haswell())).empty());
    CHECK(missing_features(saved, offered(sapphire_rapids())).empty());
    CHECK(missing_features(shown(haswell(), CpuTemplate::X86_64_v3), offered(sapphire_rapids()))
              .empty());
    CHECK_FALSE(
        missing_features(shown(sapphire_rapids(), CpuTemplate::Host), offered(haswell())).empty());
}

TEST_CASE("every host of a class shows the same words of features") {
    const auto older = shown(haswell(), CpuTemplate::X86_64_v3);
    const auto newer = shown(sapphire_rapids(), CpuTemplate::X86_64_v3);
    for (const auto function :
         {1U, 7U, 0xdU, 0x4000'0001U, 0x8000'0001U, 0x8000'0002U, 0x8000'0007U, 0x8000'0008U})
        for (const auto reg : {Register::Eax, Register::Ebx, Register::Ecx, Register::Edx}) {
            CAPTURE(function);
            CHECK(read_cpuid(older, function, 0, reg) == read_cpuid(newer, function, 0, reg));
        }
    CHECK(read_cpuid(newer, 0xd, 1, Register::Eax) == 1);
}

TEST_CASE("a host that lacks a level's features is told their names") {
    for (const auto& host : {haswell(), milan()}) {
        CHECK(missing_for(host, CpuTemplate::X86_64_v3).empty());
        const auto missing = missing_for(host, CpuTemplate::X86_64_v4);
        for (const auto* name : {"avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl"})
            CHECK(names(missing, name));
        CHECK_FALSE(names(missing, "avx2"));
    }
    CHECK(missing_for(sapphire_rapids(), CpuTemplate::X86_64_v4).empty());
    CHECK(level_of(sapphire_rapids()) == CpuTemplate::X86_64_v4);
    CHECK(level_of(milan()) == CpuTemplate::X86_64_v3);
    CHECK(level_of(shown(milan(), CpuTemplate::X86_64_v2)) == CpuTemplate::X86_64_v2);
    CHECK_FALSE(level_of({}).has_value());
    CHECK(missing_for({}, CpuTemplate::Host).empty());
}

TEST_CASE("XSAVE is as large as the register sets that are shown") {
    const auto second = shown(sapphire_rapids(), CpuTemplate::X86_64_v2);
    CHECK_FALSE(has_leaf(second, 0xd));
    CHECK((read_cpuid(second, 1, 0, Register::Ecx) & (1U << 26 | 1U << 28)) == 0);

    const auto third = shown(sapphire_rapids(), CpuTemplate::X86_64_v3);
    CHECK(read_cpuid(third, 0xd, 0, Register::Eax) == 7);
    CHECK(read_cpuid(third, 0xd, 0, Register::Ebx) == 576);
    CHECK(read_cpuid(third, 0xd, 0, Register::Ecx) == 576 + 256);
    CHECK(has_leaf(third, 0xd, 2));
    CHECK_FALSE(has_leaf(third, 0xd, 5));

    const auto fourth = shown(sapphire_rapids(), CpuTemplate::X86_64_v4);
    CHECK(read_cpuid(fourth, 0xd, 0, Register::Eax) == 0x2e7);
    CHECK(read_cpuid(fourth, 0xd, 0, Register::Ecx) == 0xa88);
    CHECK(read_cpuid(fourth, 0xd, 1, Register::Eax) == 7);  // no XSAVES
    CHECK_FALSE(has_leaf(fourth, 0xd, 17));                 // AMX
    CHECK_FALSE(has_leaf(fourth, 0x1d));
}

TEST_CASE("protection keys are shown whole or not at all") {
    auto host = sapphire_rapids();
    for (auto& one : host)
        if (one.function == 7 && one.index == 0)
            one.ecx &= ~(1U << 3);
    const auto leaves = shown(host, CpuTemplate::X86_64_v4);
    CHECK((read_cpuid(leaves, 0xd, 0, Register::Eax) & 1U << 9) == 0);
    CHECK_FALSE(has_leaf(leaves, 0xd, 9));
}

TEST_CASE("nothing beyond the template is shown") {
    for (const auto model :
         {CpuTemplate::X86_64_v2, CpuTemplate::X86_64_v3, CpuTemplate::X86_64_v4}) {
        const auto leaves = shown(sapphire_rapids(), model);
        CHECK_FALSE(has_leaf(leaves, 7, 1));
        CHECK(read_cpuid(leaves, 7, 0, Register::Eax) == 0);
        CHECK((read_cpuid(leaves, 7, 0, Register::Ecx) & 1U << 16) == 0);  // la57
        CHECK((read_cpuid(leaves, 7, 0, Register::Edx) & 1U << 29) == 0);  // arch_capabilities
        CHECK((read_cpuid(leaves, 7, 0, Register::Edx) & 1U << 26) != 0);  // spec_ctrl
        CHECK(read_cpuid(leaves, 0x8000'0008, 0, Register::Eax) == 0x3028);
        CHECK(read_cpuid(leaves, 0x8000'0008, 0, Register::Ebx) == 1U << 12);
    }
    const auto leaves = shown(milan(), CpuTemplate::X86_64_v3);
    CHECK_FALSE(has_leaf(leaves, 0x8000'0021));
    CHECK((read_cpuid(leaves, 0x8000'0001, 0, Register::Ecx) & 1U << 6) == 0);   // sse4a
    CHECK((read_cpuid(leaves, 0x8000'0001, 0, Register::Ecx) & 1U << 22) != 0);  // topoext
    CHECK(has_leaf(leaves, 0x8000'001e));
}

TEST_CASE("the vendor stays; model and brand are the template's") {
    const auto intel = shown(haswell(), CpuTemplate::X86_64_v2);
    CHECK(cpu_vendor(intel) == "GenuineIntel");
    CHECK(read_cpuid(intel, 1, 0, Register::Eax) == 0x50654);
    const auto amd = shown(milan(), CpuTemplate::X86_64_v3);
    CHECK(cpu_vendor(amd) == "AuthenticAMD");
    CHECK(read_cpuid(amd, 1, 0, Register::Eax) == 0x800f12);
    CHECK(read_cpuid(amd, 0x8000'0001, 0, Register::Eax) == 0x800f12);
    std::string brand(16, '\0');
    const auto* first = find_leaf(amd, 0x8000'0002);
    REQUIRE(first != nullptr);
    std::memcpy(brand.data(), &first->eax, 16);
    CHECK(brand == "x86-64-v3 CPU te");
    const auto missing = missing_features(amd, offered(haswell()));
    CHECK(names(missing, "a CPU made by AuthenticAMD"));
}

TEST_CASE("the host's own CPU is shown as it is") {
    const auto host = milan();
    const auto same = apply_template(host, CpuTemplate::Host);
    CHECK(std::ranges::equal(same, host, [](const auto& a, const auto& b) {
        return std::memcmp(&a, &b, sizeof a) == 0;
    }));
}

TEST_CASE("a host that keeps registers elsewhere, or has fewer address bits, is refused") {
    const auto saved = shown(sapphire_rapids(), CpuTemplate::X86_64_v4);
    auto host = sapphire_rapids();
    for (auto& one : host) {
        if (one.function == 0xd && one.index == 5)
            one.ebx = 0x340;
        if (one.function == 0x8000'0008)
            one.eax = 0x3027;
    }
    const auto missing = missing_features(saved, offered(host));
    REQUIRE(missing.size() == 2);
    CHECK(missing[0].starts_with("register set 5 of the XSAVE area at byte 1088"));
    CHECK(missing[1] == "40 physical address bits (it has 39)");
}

TEST_CASE("MSRs of features that a guest was not shown are not saved") {
    const std::vector<kvm_msr_entry> msrs{{.index = 0x10, .reserved = 0, .data = 1},
                                          {.index = 0x48, .reserved = 0, .data = 2},
                                          {.index = 0x10a, .reserved = 0, .data = 3},
                                          {.index = 0xda0, .reserved = 0, .data = 4}};
    const auto indexes = [&](const CpuidLeaves& leaves) {
        std::vector<std::uint32_t> kept;
        for (const auto& msr : shown_msrs(msrs, leaves))
            kept.push_back(msr.index);
        return kept;
    };
    using Indexes = std::vector<std::uint32_t>;
    CHECK(indexes(offered(sapphire_rapids())) == Indexes{0x10, 0x48, 0x10a, 0xda0});
    CHECK(indexes(shown(sapphire_rapids(), CpuTemplate::X86_64_v4)) == Indexes{0x10, 0x48});
    CHECK(indexes(shown(milan(), CpuTemplate::X86_64_v2)) == Indexes{0x10, 0x48});
    CHECK(indexes({}) == Indexes{0x10});
}

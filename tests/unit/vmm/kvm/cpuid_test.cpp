#include "vmm/kvm/cpuid.hpp"

#include <doctest/doctest.h>

#include <set>

#include "tests/unit/vmm/kvm/cpuid_leaf.hpp"

using namespace masu::kvm;

namespace {

// "GenuineIntel" and "AuthenticAMD" in EBX.
constexpr std::uint32_t genu = 0x756e'6547;
constexpr std::uint32_t auth = 0x6874'7541;

CpuidLeaves intel() {
    return {leaf(0, 0x1f, genu, 0, 0),
            leaf(1, 0x806f8, 0x0008'0800, 0xffff'ffff, 0xffff'ffff),
            leaf(4, 0xfc00'4121, 0x02c0'003f, 63, 0, 0),    // L1d
            leaf(4, 0xfc1f'c163, 0x0380'003f, 1023, 4, 1),  // L3
            leaf(4, 0, 0, 0, 0, 2),
            leaf(6, 0x77, 2, 9, 0),
            leaf(7, 2, 0xffff'ffff, 0xffff'ffff, 0xffff'ffff, 0),
            leaf(0xa, 0x0730'0404, 0, 0, 0x603),
            leaf(0xb, 1, 2, 0x100, 7, 0),
            leaf(0xb, 6, 64, 0x201, 7, 1),
            leaf(0x1f, 1, 2, 0x100, 7, 0),
            leaf(0x8000'0008, 0x3934, 0, 0, 0)};
}

CpuidLeaves amd() {
    return {leaf(0, 0xd, auth, 0, 0),
            leaf(1, 0xa00f11, 0x0102'0800, 0x8120'2000, 0x078b'fbff),
            leaf(0x8000'0001, 0xa00f11, 0, 0xffff'ffff, 0x23d3'fbff),
            leaf(0x8000'0007, 0, 0, 0, 0x100),
            leaf(0x8000'0008, 0x3030, 0, 0x0001'7001, 0),
            leaf(0x8000'000a, 1, 2, 3, 4),
            leaf(0x8000'001d, 0x121, 0x01c0'003f, 63, 0, 0),
            leaf(0x8000'001d, 0x4163, 0x03c0'003f, 0x7fff, 1, 1),
            leaf(0x8000'001e, 0, 0, 0, 0)};
}

const kvm_cpuid_entry2& get(const CpuidLeaves& leaves, std::uint32_t function,
                            std::uint32_t index = 0) {
    const auto* const found = find_leaf(leaves, function, index);
    REQUIRE(found != nullptr);
    return *found;
}

constexpr bool has(std::uint32_t value, unsigned bit) {
    return (value >> bit & 1) != 0;
}

}  // namespace

TEST_CASE("every vCPU has its own APIC id in every leaf that tells it") {
    for (const auto& supported : {intel(), amd()}) {
        std::set<std::uint32_t> ids;
        for (std::uint32_t id = 0; id < 4; ++id) {
            const auto leaves = make_cpuid(supported, {.topology = {4, true}}, id);
            CHECK((get(leaves, 1).ebx >> 24) == id);
            CHECK(get(leaves, 0xb, 0).edx == id);
            CHECK(get(leaves, 0xb, 1).edx == id);
            ids.insert(get(leaves, 0xb).edx);
        }
        CHECK(ids.size() == 4);
    }
}

TEST_CASE("leaf 0xB describes threads and cores") {
    struct Case {
        unsigned vcpus;
        bool smt;
        std::uint32_t thread_shift, threads, package_shift;
    };
    for (const auto& c : {Case{1, false, 0, 1, 0}, Case{1, true, 0, 1, 0}, Case{2, false, 0, 1, 1},
                          Case{2, true, 1, 2, 1}, Case{3, false, 0, 1, 2}, Case{8, true, 1, 2, 3},
                          Case{32, true, 1, 2, 5}}) {
        CAPTURE(c.vcpus);
        CAPTURE(c.smt);
        const auto leaves = make_cpuid(amd(), {.topology = {c.vcpus, c.smt}}, 0);
        CHECK(get(leaves, 0).eax >= 0xb);
        CHECK(get(leaves, 0xb, 0).eax == c.thread_shift);
        CHECK(get(leaves, 0xb, 0).ebx == c.threads);
        CHECK(get(leaves, 0xb, 0).ecx == 0x100);
        CHECK(get(leaves, 0xb, 1).eax == c.package_shift);
        CHECK(get(leaves, 0xb, 1).ebx == c.vcpus);
        CHECK(get(leaves, 0xb, 1).ecx == 0x201);
        CHECK(get(leaves, 0xb, 2).ecx == 2);
        CHECK(has(get(leaves, 1).edx, 28) == (c.vcpus > 1));
    }
}

TEST_CASE("Intel: the host's topology does not shine through") {
    const auto leaves = make_cpuid(intel(), {.topology = {4, true}}, 3);
    CHECK((get(leaves, 1).ebx >> 16 & 0xff) == 4);
    CHECK((get(leaves, 4, 0).eax >> 14 & 0xfff) == 1);  // L1: the threads of a core
    CHECK((get(leaves, 4, 1).eax >> 14 & 0xfff) == 3);  // L3: all
    CHECK((get(leaves, 4, 0).eax >> 26) == 1);          // two cores
    CHECK((get(leaves, 4, 0).eax & 0x3fff) == 0x121);
    CHECK(get(leaves, 4, 2).eax == 0);
    CHECK(get(leaves, 0x1f, 1).ebx == 4);
    CHECK(get(leaves, 0x8000'0008).ecx == 0);
}

TEST_CASE("AMD: cores, caches and extended APIC id follow the topology") {
    const auto leaves = make_cpuid(amd(), {.topology = {4, true}}, 3);
    CHECK((get(leaves, 0x8000'0008).ecx & 0xff) == 3);
    CHECK((get(leaves, 0x8000'0008).ecx >> 12 & 0xf) == 2);
    CHECK((get(leaves, 0x8000'001d, 0).eax >> 14 & 0xfff) == 1);
    CHECK((get(leaves, 0x8000'001d, 1).eax >> 14 & 0xfff) == 3);
    CHECK(get(leaves, 0x8000'001e).eax == 3);
    CHECK(get(leaves, 0x8000'001e).ebx == (1U | 1U << 8));
    CHECK(has(get(leaves, 0x8000'0001).ecx, 1));
    CHECK(get(leaves, 0x8000'0007).edx == 0x100);
    CHECK(find_leaf(leaves, 0x1f) == nullptr);
}

TEST_CASE("what a guest must not use is hidden, what the LAPIC adds is shown") {
    const auto leaves = make_cpuid(intel(), {.topology = {1, false}, .tsc_deadline = true}, 0);
    const auto ecx = get(leaves, 1).ecx;
    for (const unsigned hidden : {2U, 3U, 4U, 5U, 6U, 15U, 27U})
        CHECK_FALSE(has(ecx, hidden));
    for (const unsigned shown : {0U, 21U, 24U, 26U, 31U})
        CHECK(has(ecx, shown));
    CHECK(get(leaves, 0xa).eax == 0);
    CHECK(get(leaves, 6).eax == 4);
    CHECK(get(leaves, 6).ecx == 0);
    CHECK_FALSE(has(get(leaves, 7).ebx, 2));

    const auto without = make_cpuid(intel(), {.topology = {1, false}, .tsc_deadline = false}, 0);
    CHECK_FALSE(has(get(without, 1).ecx, 24));

    const auto on_amd = make_cpuid(amd(), {}, 0);
    CHECK_FALSE(has(get(on_amd, 0x8000'0001).ecx, 2));
    CHECK(get(on_amd, 0x8000'000a).eax == 0);
}

TEST_CASE("nothing is offered that the host's KVM lacks") {
    auto poor = intel();
    poor[1].ecx = 0;
    poor[1].edx = 0;
    const auto leaves = make_cpuid(poor, {.topology = {2, false}, .tsc_deadline = false}, 0);
    CHECK(get(leaves, 1).ecx == (1U << 21 | 1U << 31));
    CHECK(get(leaves, 1).edx == (1U << 28));
    CHECK(make_cpuid({}, {}, 0).size() == 3);  // leaf 0xB alone
}

#include "vmm/kvm/guest_ram.hpp"

#include <doctest/doctest.h>
#include <sys/mman.h>

#include "base/bytes.hpp"
#include "vmm/kvm/kvm.hpp"
#include "vmm/kvm/msrs.hpp"

using namespace masu;
using namespace masu::kvm;

TEST_CASE("RAM goes round the hole below 4 GiB") {
    auto ram = GuestRam::create(6 * GiB, HugePages::None);
    REQUIRE(ram);
    const auto regions = ram->regions();
    REQUIRE(regions.size() == 2);
    CHECK(regions[0].start.value == 0);
    CHECK(regions[0].bytes.size() == 3 * GiB);
    CHECK(regions[1].start.value == 4 * GiB);
    CHECK(regions[1].bytes.size() == 3 * GiB);
    const auto memory = ram->memory();
    CHECK(memory.total_bytes() == 6 * GiB);
    CHECK(memory.store(GuestAddress{7 * GiB - 8}, std::uint64_t{1}));
    CHECK_FALSE(memory.store(GuestAddress{7 * GiB - 7}, std::uint64_t{1}));
    CHECK_FALSE(memory.store(GuestAddress{3 * GiB - 4}, std::uint64_t{1}));
    CHECK(is_aligned(reinterpret_cast<std::uintptr_t>(ram->bytes().data()), 2 * MiB));
}

TEST_CASE("small RAM is one region, and a memory file holds the same bytes") {
    auto ram = GuestRam::create(64 * MiB, HugePages::None, GuestRam::Backing::Memfd);
    REQUIRE(ram);
    CHECK(ram->regions().size() == 1);
    REQUIRE(ram->memfd() >= 0);
    ram->bytes()[5 * MiB] = std::byte{0x5a};
    auto view = Mapping::create("view", 64 * MiB, PROT_READ, MAP_SHARED, ram->memfd());
    REQUIRE(view);
    CHECK(view->bytes()[5 * MiB] == std::byte{0x5a});
}

TEST_CASE("memory the host cannot give is a sentence with a remedy") {
    CHECK_FALSE(GuestRam::create(0, HugePages::None));
    CHECK_FALSE(GuestRam::create(MiB + 1, HugePages::None));
    CHECK_FALSE(GuestRam::create(3 * MiB, HugePages::Explicit2M));
    const auto huge = GuestRam::create(1ULL << 50, HugePages::None);
    REQUIRE_FALSE(huge);
    CHECK(huge.error().message.find("give the VM less") != std::string::npos);
}

TEST_CASE("a missing KVM is explained by what the CPU shows") {
    constexpr auto flags = [](const char* list) {
        return fmt::format("processor\t: 0\nflags\t\t: fpu {} sse\nbugs\t: x\n", list);
    };
    CHECK(remedy_for_absent_kvm(flags("vmx")).find("kvm_intel") != std::string::npos);
    CHECK(remedy_for_absent_kvm(flags("svm")).find("kvm_amd") != std::string::npos);
    CHECK(remedy_for_absent_kvm(flags("hypervisor")).find("nested") != std::string::npos);
    CHECK(remedy_for_absent_kvm(flags("svm_lock")).find("firmware") != std::string::npos);
    CHECK(remedy_for_absent_kvm("").find("firmware") != std::string::npos);

    const auto missing = Kvm::open("/dev/no-such-kvm");
    REQUIRE_FALSE(missing);
    CHECK(missing.error().os_errno == ENOENT);
    const auto other = Kvm::open("/dev/null");
    REQUIRE_FALSE(other);
    CHECK(other.error().message.find("not a KVM device") != std::string::npos);
}

TEST_CASE("a LAPIC starts with its pins as firmware leaves them") {
    kvm_lapic_state lapic{};
    set_boot_lint(lapic);
    CHECK(load_unaligned<std::uint32_t>(std::as_bytes(std::span(lapic.regs)).data() + 0x350) ==
          0x700);
    CHECK(load_unaligned<std::uint32_t>(std::as_bytes(std::span(lapic.regs)).data() + 0x360) ==
          0x400);
}

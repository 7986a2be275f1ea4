// Whole machines, as the monitor puts them together, around a kernel of a few instructions.
#include <doctest/doctest.h>

#include <initializer_list>

#include "tests/kvm/whole_machine.hpp"
#include "tests/unit/vmm/boot/fake_kernels.hpp"
#include "vmm/layout.hpp"

using namespace masu;
using namespace masu::test;

namespace {

constexpr std::size_t entry_in_file = 0x1040;  // of make_elf(); guest-physical 0x1000040
constexpr std::uint8_t s5 = 1 << 5 | 5 << 2;   // SLEEP_CONTROL: SLP_EN, and the DSDT's type of S5

// Keeps a number at the end of its memory, says so on COM1 once it reads it back, and switches the
// machine off. 32-bit code: PVH enters in protected mode.
boot::test::Bytes kernel_that_writes_at(std::uint32_t address) {
    auto image = boot::test::make_elf();
    auto at = entry_in_file;
    const auto code = [&](std::initializer_list<int> bytes) {
        for (const int byte : bytes)
            image[at++] = static_cast<std::byte>(byte);
    };
    const auto word = [&](std::uint32_t value) {
        boot::test::put(image, at, value);
        at += sizeof value;
    };
    code({0xbb}), word(address);                           // mov $address, %ebx
    code({0xc7, 0x03}), word(0x6d617375);                  // movl $..., (%ebx)
    code({0x8b, 0x03});                                    // mov (%ebx), %eax
    code({0x3d}), word(0x6d617375);                        // cmp $..., %eax
    code({0x75, 0x0b});                                    // jne over the byte and the sleep
    code({0x66, 0xba, 0xf8, 0x03, 0xb0, 'k', 0xee});       // mov $0x3f8, %dx; mov $'k', %al; out
    code({0xeb, 0x05});                                    // jmp to the sleep
    code({0x90, 0x90, 0xf4, 0xeb, 0xfd});                  // 1: hlt; jmp 1b
    code({0x66, 0xba, 0x00, 0x06, 0xb0, s5, 0xee, 0xf4});  // out S5 to SLEEP_CONTROL
    return image;
}

Ended run(const MachineConfig& machine, std::uint32_t address) {
    const boot::test::TestFile kernel(kernel_that_writes_at(address));
    VmConfig config;
    config.machine = machine;
    config.boot_source =
        BootSource{.kernel_image_path = kernel.path(), .initrd_path = {}, .boot_args = {}};
    return run_machine(config, 20'000'000'000);
}

}  // namespace

TEST_CASE("a machine has the memory it was given, to its last word, and switches off") {
    for (const std::uint64_t mib : {64U, 3072U, 6144U}) {
        CAPTURE(mib);
        const auto below_hole = std::min<std::uint64_t>(mib * MiB, layout::low_ram_end);
        const auto ended =
            run({.vcpu_count = 1, .mem_size_mib = mib}, static_cast<std::uint32_t>(below_hole - 4));
        CHECK(ended.console == "k");
        REQUIRE(ended.stop);
        CHECK(ended.stop->kind == StopKind::PowerOff);
    }
}

TEST_CASE("a machine has as many vCPUs as the most that can be asked for") {
    const auto ended = run({.vcpu_count = max_vcpus, .mem_size_mib = 128}, 0x200'0000);
    CHECK(ended.console == "k");
    REQUIRE(ended.stop);
    CHECK(ended.stop->kind == StopKind::PowerOff);
}

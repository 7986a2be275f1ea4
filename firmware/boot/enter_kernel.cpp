// The jump into a Linux kernel.
#include <array>

#include "firmware/boot/linux_handoff.hpp"

namespace masu::firmware {

namespace {

constexpr std::uint64_t entry_offset = 0x200;  // of the 64-bit entry point

// Flat: code at 0x10, data at 0x18, as the protocol wants them.
constexpr std::array<std::uint64_t, 4> descriptors{0, 0, 0x00af'9b00'0000'ffff,
                                                   0x00cf'9300'0000'ffff};

struct [[gnu::packed]] TableRegister {
    std::uint16_t limit;
    std::uint64_t base;
};

}  // namespace

void enter_kernel(const HandoffPlan& plan) noexcept {
    const TableRegister table{sizeof descriptors - 1,
                              reinterpret_cast<std::uint64_t>(descriptors.data())};
    const std::uint64_t entry = plan.kernel_address + entry_offset;
    asm volatile(
        "cli\n\t"
        "cld\n\t"
        "lgdt %[table]\n\t"
        "mov $0x18, %%eax\n\t"
        "mov %%eax, %%ds\n\t"
        "mov %%eax, %%es\n\t"
        "mov %%eax, %%ss\n\t"
        // A far return loads CS.
        "push $0x10\n\t"
        "push %[entry]\n\t"
        "lretq"
        :
        : [table] "m"(table), [entry] "r"(entry), "S"(plan.parameters)
        : "rax", "memory");
    __builtin_unreachable();
}

}  // namespace masu::firmware

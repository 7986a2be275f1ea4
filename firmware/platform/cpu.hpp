// Instructions that C++ has no words for.
#pragma once

#include <cstdint>

namespace masu::firmware::cpu {

inline void out8(std::uint16_t port, std::uint8_t value) noexcept {
    asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}
inline std::uint8_t in8(std::uint16_t port) noexcept {
    std::uint8_t value;
    asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
inline std::uint64_t read_tsc() noexcept {
    std::uint32_t low;
    std::uint32_t high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high));
    return std::uint64_t{high} << 32 | low;
}
inline void pause() noexcept {
    asm volatile("pause");
}
[[noreturn]] inline void halt() noexcept {
    for (;;)
        asm volatile("cli; hlt");
}
// For MMIO and rings: the compiler may not move accesses across it; x86 keeps loads and stores in
// order by itself, but for a store before a load.
inline void compiler_barrier() noexcept {
    asm volatile("" : : : "memory");
}
inline void full_barrier() noexcept {
    asm volatile("mfence" : : : "memory");
}
struct CpuidResult {
    std::uint32_t eax, ebx, ecx, edx;
};
inline CpuidResult cpuid(std::uint32_t leaf, std::uint32_t subleaf = 0) noexcept {
    CpuidResult r{};
    asm volatile("cpuid"
                 : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                 : "a"(leaf), "c"(subleaf));
    return r;
}
template <class T>
T mmio_read(std::uint64_t address) noexcept {
    return *reinterpret_cast<volatile T*>(address);
}
template <class T>
void mmio_write(std::uint64_t address, T value) noexcept {
    *reinterpret_cast<volatile T*>(address) = value;
}

}  // namespace masu::firmware::cpu

// A small, sound PE32+ image to damage.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace masu::firmware::test {

// Headers of 512 bytes, .text at 0x1000 (512 bytes), .reloc at 0x2000 with one 64-bit relocation of
// the word at 0x1008, which holds base + 0x1234.
struct FakePe {
    static constexpr std::size_t pe = 0x80;
    static constexpr std::size_t coff = pe + 4;
    static constexpr std::size_t optional = coff + 20;
    static constexpr std::size_t sections = optional + 240;
    static constexpr std::uint64_t base = 0x4000'0000;
    std::vector<std::byte> bytes = std::vector<std::byte>(512 + 512 + 512);

    template <class T>
    FakePe& set(std::size_t at, T value) {
        std::memcpy(bytes.data() + at, &value, sizeof value);
        return *this;
    }
    void section(unsigned index, std::uint32_t size, std::uint32_t address, std::uint32_t raw_size,
                 std::uint32_t raw) {
        const auto at = sections + index * 40;
        set<std::uint32_t>(at + 8, size);
        set<std::uint32_t>(at + 12, address);
        set<std::uint32_t>(at + 16, raw_size);
        set<std::uint32_t>(at + 20, raw);
    }
    FakePe() {
        set<std::uint16_t>(0, 0x5a4d);
        set<std::uint32_t>(0x3c, pe);
        set<std::uint32_t>(pe, 0x4550);
        set<std::uint16_t>(coff, 0x8664);
        set<std::uint16_t>(coff + 2, 2);
        set<std::uint16_t>(coff + 16, 240);
        set<std::uint16_t>(optional, 0x20b);
        set<std::uint32_t>(optional + 16, 0x1000);  // entry
        set<std::uint64_t>(optional + 24, base);
        set<std::uint32_t>(optional + 56, 0x3000);  // size
        set<std::uint32_t>(optional + 60, 512);     // headers
        set<std::uint16_t>(optional + 68, 10);      // subsystem
        set<std::uint32_t>(optional + 108, 16);
        set<std::uint32_t>(optional + 112 + 40, 0x2000);
        set<std::uint32_t>(optional + 112 + 44, 12);
        section(0, 0x200, 0x1000, 0x200, 512);
        section(1, 12, 0x2000, 0x200, 1024);
        set<std::uint8_t>(512, 0xc3);
        set<std::uint64_t>(512 + 8, base + 0x1234);
        set<std::uint32_t>(1024, 0x1000);
        set<std::uint32_t>(1028, 12);
        set<std::uint16_t>(1032, 10 << 12 | 8);
    }
};

}  // namespace masu::firmware::test

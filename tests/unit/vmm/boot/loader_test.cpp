#include "vmm/boot/loader.hpp"

#include <doctest/doctest.h>

#include "tests/unit/vmm/boot/fake_kernels.hpp"
#include "vmm/boot/bzimage.hpp"
#include "vmm/boot/e820.hpp"
#include "vmm/boot/elf.hpp"
#include "vmm/boot/initrd.hpp"
#include "vmm/boot/kernel_image.hpp"
#include "vmm/layout.hpp"

using namespace masu;
using namespace masu::boot;
using namespace masu::boot::test;

namespace {

std::string text_at(const GuestMemory& memory, std::uint64_t address) {
    std::string text;
    for (;; ++address) {
        const auto c = memory.load<char>(GuestAddress{address}).value_or('\0');
        if (c == '\0')
            return text;
        text += c;
    }
}

template <class T>
T get(const GuestMemory& memory, std::uint64_t address) {
    return memory.load<T>(GuestAddress{address}).value();
}

// Loads and gives the error's sentence; "" when it worked.
std::string load_error(const Bytes& kernel, std::uint64_t ram = 64 * MiB,
                       const std::string& command_line = "") {
    const TestFile file(kernel);
    const TestRam memory(ram);
    const auto entry = load({file.path(), std::nullopt, command_line, 0}, memory.memory());
    return entry ? "" : entry.error().message;
}

bool says(const std::string& sentence, std::string_view part) {
    INFO(sentence);
    return sentence.find(part) != std::string::npos;
}

template <class T>
Bytes patched(Bytes image, std::size_t offset, T value) {
    put(image, offset, value);
    return image;
}

Bytes bytes_of(std::string_view text) {
    const auto bytes = std::as_bytes(std::span(text));
    return {bytes.begin(), bytes.end()};
}

}  // namespace

TEST_CASE("a bzImage lands at its preferred address with a whole zero page") {
    const TestFile kernel(make_bzimage());
    const TestFile initrd(Bytes(5000, std::byte{0x77}));
    const TestRam ram(64 * MiB);
    const auto memory = ram.memory();
    const auto entry = load({kernel.path(), initrd.path(), "console=ttyS0", 0xe'0000}, memory);
    REQUIRE(entry);
    CHECK(entry->mode == EntryMode::Long64);
    CHECK(entry->instruction_pointer == 0x100'0200);
    CHECK(entry->parameters == layout::zero_page);
    CHECK(get<std::uint8_t>(memory, 0x100'2fff) == 0xcc);
    CHECK(get<std::uint8_t>(memory, 0x100'3000) == 0);

    constexpr auto zp = layout::zero_page;
    CHECK(get<std::uint32_t>(memory, zp + 0x202) == 0x5372'6448);
    CHECK(get<std::uint8_t>(memory, zp + 0x210) == 0xff);
    CHECK(get<std::uint64_t>(memory, zp + 0x70) == 0xe'0000);
    CHECK(text_at(memory, get<std::uint32_t>(memory, zp + 0x228)) == "console=ttyS0");
    const auto initrd_at = get<std::uint32_t>(memory, zp + 0x218);
    CHECK(initrd_at == 64 * MiB - 0x2000);
    CHECK(get<std::uint32_t>(memory, zp + 0x21c) == 5000);
    CHECK(get<std::uint8_t>(memory, initrd_at + 4999) == 0x77);
    CHECK(get<std::uint8_t>(memory, zp + 0x1e8) == 4);
    CHECK(get<std::uint64_t>(memory, zp + 0x2d0 + 8) == layout::ebda_start);
    CHECK(get<std::uint32_t>(memory, zp + 0x2d0 + 16) == 1);
    CHECK(get<std::uint8_t>(memory, zp + 0x1ef) == 0);  // the sentinel
}

TEST_CASE("an ELF kernel is entered by PVH with start info, module and memory map") {
    const TestFile kernel(make_elf());
    const TestFile initrd(Bytes(4096, std::byte{0x77}));
    const TestRam ram(64 * MiB);
    const auto memory = ram.memory();
    const auto entry = load({kernel.path(), initrd.path(), "quiet", 0xe'0000}, memory);
    REQUIRE(entry);
    CHECK(entry->mode == EntryMode::Protected32);
    CHECK(entry->instruction_pointer == 0x100'0040);
    CHECK(get<std::uint8_t>(memory, 0x100'07ff) == 0xcc);
    CHECK(get<std::uint8_t>(memory, 0x100'0800) == 0);
    CHECK(get<std::uint8_t>(memory, 0x110'000f) == 0xcc);

    const auto info = entry->parameters;
    CHECK(get<std::uint32_t>(memory, info) == 0x336e'c578);
    CHECK(get<std::uint32_t>(memory, info + 4) == 1);
    CHECK(get<std::uint32_t>(memory, info + 12) == 1);
    const auto module = get<std::uint64_t>(memory, info + 16);
    CHECK(get<std::uint64_t>(memory, module) == 64 * MiB - 4096);
    CHECK(get<std::uint64_t>(memory, module + 8) == 4096);
    CHECK(text_at(memory, get<std::uint64_t>(memory, info + 24)) == "quiet");
    CHECK(get<std::uint64_t>(memory, info + 32) == 0xe'0000);
    CHECK(get<std::uint32_t>(memory, info + 48) == 4);
    const auto map = get<std::uint64_t>(memory, info + 40);
    CHECK(get<std::uint64_t>(memory, map + 2 * 24) == MiB);
    CHECK(get<std::uint64_t>(memory, map + 2 * 24 + 8) == 63 * MiB);
}

TEST_CASE("what is no kernel is told by name, with what to do") {
    CHECK(says(load_error({}), "is empty"));
    CHECK(says(load_error(Bytes(100)), "neither a bzImage nor an ELF kernel"));
    CHECK(says(load_error(Bytes(100)), "only 100 bytes"));
    CHECK(says(load_error(Bytes(9000)), "give the vmlinuz"));
    CHECK(says(load_error(bytes_of("\x1f\x8b rest")), "gzip"));
    CHECK(says(load_error(bytes_of("QFI\xfb rest")), "qcow2"));
    CHECK(says(load_error(bytes_of("070701")), "initramfs"));
    CHECK(says(load_error(patched(patched(Bytes(4096), 0, std::uint16_t{0x5a4d}), 56,
                                  std::uint32_t{0x644d'5241})),
               "arm64"));
    CHECK(says(load_error(patched(Bytes(4096), 0, std::uint16_t{0x5a4d})), "EFI program"));
    CHECK(says(load_error(patched(Bytes(4096), 0x1fe, std::uint16_t{0xaa55})), "disk image"));

    const TestRam ram(64 * MiB);
    const auto missing = load({"/nowhere/vmlinuz", {}, "", 0}, ram.memory());
    REQUIRE_FALSE(missing);
    CHECK(says(missing.error().message, "cannot open kernel /nowhere/vmlinuz"));
    const auto folder = load({"/tmp", {}, "", 0}, ram.memory());
    REQUIRE_FALSE(folder);
    CHECK(says(folder.error().message, "is a directory"));
}

TEST_CASE("a bzImage that is damaged, old or too big is refused") {
    const auto good = make_bzimage();
    CHECK(load_error(good) == "");
    CHECK(says(load_error(patched(good, 0x206, std::uint16_t{0x020b})), "protocol 2.11"));
    CHECK(says(load_error(patched(good, 0x236, std::uint16_t{0})), "32-bit kernel"));
    CHECK(says(load_error(patched(good, 0x258, std::uint64_t{0x1000})), "no place"));
    CHECK(says(load_error(patched(good, 0x258, ~std::uint64_t{0xfff})), "no place"));
    CHECK(says(load_error(patched(good, 0x260, std::uint32_t{0xffff'ffff})), "more memory"));
    CHECK(says(load_error(patched(good, 0x1f4, std::uint32_t{0x400})), "truncated"));
    CHECK(says(load_error(patched(good, 0x1f1, std::uint8_t{200})), "truncated"));
    for (const std::size_t size : {0x206U, 0x210U, 0x263U, 0x400U, 0x1000U}) {
        CAPTURE(size);
        CHECK(says(load_error(Bytes(good.begin(), good.begin() + static_cast<int>(size))),
                   "truncated"));
    }
    CHECK(says(load_error(good, 20 * MiB), "more memory"));
}

TEST_CASE("an ELF file that is damaged or none of ours is refused") {
    const auto good = make_elf();
    CHECK(load_error(good) == "");
    CHECK(says(load_error(patched(good, 18, std::uint16_t{EM_AARCH64})), "arm64"));
    CHECK(says(load_error(patched(good, EI_CLASS, std::uint8_t{ELFCLASS32})), "32-bit"));
    CHECK(says(load_error(patched(good, 16, std::uint16_t{ET_REL})), "object file"));
    CHECK(says(load_error(patched(good, 56, std::uint16_t{0})), "program headers"));
    CHECK(says(load_error(patched(good, 56, std::uint16_t{60000})), "program headers"));
    CHECK(says(load_error(patched(good, 32, ~std::uint64_t{0})), "truncated"));
    CHECK(says(load_error(patched(good, 0x220, std::uint32_t{19})), "CONFIG_PVH"));
    CHECK(says(load_error(patched(good, 0x218, std::uint32_t{0xffff'ffff})), "CONFIG_PVH"));
    CHECK(says(load_error(patched(good, 0x228, std::uint32_t{0x5000})), "entry point"));
    constexpr std::size_t first = 64;
    CHECK(says(load_error(patched(good, first + 24, std::uint64_t{0x1000})), "entry point"));
    CHECK(says(load_error(patched(good, first + 24, ~std::uint64_t{0})), "damaged"));
    CHECK(says(load_error(patched(good, first + 8, std::uint64_t{0x1'0000})), "truncated"));
    CHECK(says(load_error(patched(good, first + 32, std::uint64_t{0x2000})), "damaged"));
    CHECK(says(load_error(patched(good, first + 40, std::uint64_t{1} << 40)), "more memory"));
    CHECK(
        says(load_error(patched(good, first + 112 + 24, std::uint64_t{0x8'0000})), "below 1 MiB"));
    for (const std::size_t size : {4U, 63U, 100U, 0x220U, 0x1000U, 0x180fU}) {
        CAPTURE(size);
        CHECK(says(load_error(Bytes(good.begin(), good.begin() + static_cast<int>(size))),
                   "truncated"));
    }
}

TEST_CASE("a command line is bounded by the kernel's limit and free of control characters") {
    CHECK(check_command_line(std::string(2047, 'x'), 2047));
    CHECK_FALSE(check_command_line(std::string(2048, 'x'), 2047));
    CHECK_FALSE(check_command_line("a\nb", 2047));
    CHECK_FALSE(check_command_line(std::string("a\0b", 3), 2047));
    CHECK_FALSE(check_command_line("\x7f", 2047));
    CHECK(check_command_line("name=\"w\xc3\xb6rd\" -- --single", 2047));
    CHECK(says(load_error(make_bzimage(), 64 * MiB, std::string(2048, 'x')), "2048 bytes"));
    CHECK(says(load_error(make_elf(), 64 * MiB, std::string(2048, 'x')), "2048 bytes"));
    // A header may promise more than there is room for.
    CHECK(says(load_error(patched(make_bzimage(), 0x238, std::uint32_t{0xffff'ffff}), 64 * MiB,
                          std::string(0x10000, 'x')),
               "65535"));
}

TEST_CASE("an initrd goes as high as it may, or is refused") {
    const TestRam ram(6 * GiB);
    const auto memory = ram.memory();
    InitrdPlacement placement{.lowest = 32 * MiB + 1, .highest_byte = 0x7fff'ffff};
    CHECK(place_initrd(4096, placement, memory)->value == 2 * GiB - 4096);
    CHECK(place_initrd(1, placement, memory)->value == 2 * GiB - 4096);
    CHECK(place_initrd(2 * GiB - 32 * MiB - 4096, placement, memory)->value == 32 * MiB + 4096);
    CHECK_FALSE(place_initrd(2 * GiB - 32 * MiB - 4095, placement, memory));
    placement.highest_byte = 0xffff'ffff;
    CHECK(place_initrd(4096, placement, memory)->value == 3 * GiB - 4096);
    CHECK_FALSE(place_initrd(3 * GiB, placement, memory));
    placement.above_4g = true;
    CHECK(place_initrd(3 * GiB, placement, memory)->value == 4 * GiB);
    CHECK_FALSE(place_initrd(~std::uint64_t{0}, placement, memory));
    placement.highest_byte = 0;
    placement.above_4g = false;
    CHECK_FALSE(place_initrd(1, placement, memory));

    const TestFile kernel(make_bzimage());
    const TestFile initrd(Bytes(41 * MiB));
    const TestRam small(64 * MiB);
    const auto refused = load({kernel.path(), initrd.path(), "", 0}, small.memory());
    REQUIRE_FALSE(refused);
    CHECK(says(refused.error().message, "give the VM more memory"));
    const auto missing = load({kernel.path(), "/nowhere/initrd", "", 0}, small.memory());
    REQUIRE_FALSE(missing);
    CHECK(says(missing.error().message, "cannot open initrd"));
}

TEST_CASE("the memory map goes round the holes and reserves the ECAM window") {
    const TestRam ram(6 * GiB);
    const auto map = e820_map(ram.memory());
    REQUIRE(map.size() == 5);
    std::uint64_t last_end = 0;
    for (const auto& entry : map) {
        CHECK(entry.start >= last_end);
        last_end = entry.start + entry.size;
    }
    CHECK(last_end == 7 * GiB);
    CHECK(map[2].start + map[2].size == 3 * GiB);
    CHECK(map[3].start == layout::pci_ecam);
    CHECK(map[3].type == E820Type::Reserved);
}

TEST_CASE("the entry states are those of the two protocols") {
    const TestRam ram(64 * MiB);
    const auto memory = ram.memory();
    kvm_sregs sregs{};
    kvm_regs regs{};
    REQUIRE(write_entry_tables(memory, EntryMode::Long64));
    apply_entry_state({EntryMode::Long64, 0x100'0200, 0x7000}, sregs, regs);
    CHECK(regs.rip == 0x100'0200);
    CHECK(regs.rsi == 0x7000);
    CHECK(regs.rflags == 2);
    CHECK(sregs.cs.selector == 0x10);
    CHECK(sregs.cs.l == 1);
    CHECK(sregs.cs.db == 0);
    CHECK(sregs.ds.selector == 0x18);
    CHECK(sregs.ds.limit == 0xffff'ffff);
    CHECK((sregs.cr0 & 0x8000'0001) == 0x8000'0001);
    CHECK(sregs.efer == 0x500);
    // PML4 -> PDPT -> directory -> the last 2 MiB page below 4 GiB.
    const auto pdpt = get<std::uint64_t>(memory, sregs.cr3) & ~0xfffULL;
    const auto directory = get<std::uint64_t>(memory, pdpt + 3 * 8) & ~0xfffULL;
    CHECK(get<std::uint64_t>(memory, directory + 511 * 8) == (0xffe0'0000 | 0x83));

    REQUIRE(write_entry_tables(memory, EntryMode::Protected32));
    apply_entry_state({EntryMode::Protected32, 0x100'0040, 0x6000}, sregs, regs);
    CHECK(regs.rbx == 0x6000);
    CHECK(sregs.cr0 == 0x11);
    CHECK(sregs.efer == 0);
    CHECK(sregs.cs.db == 1);
    CHECK(sregs.cs.l == 0);
    CHECK(sregs.tr.type == 11);
    CHECK(sregs.tr.limit == 0x67);
    CHECK(get<std::uint64_t>(memory, sregs.gdt.base + 0x10) == 0x00cf'9b00'0000'ffff);
}

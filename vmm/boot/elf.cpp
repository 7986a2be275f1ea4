#include "vmm/boot/elf.hpp"

#include <elf.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "base/bytes.hpp"
#include "vmm/boot/e820.hpp"
#include "vmm/boot/initrd.hpp"
#include "vmm/layout.hpp"

namespace masu::boot {

namespace {

constexpr std::size_t max_program_headers = 128;
constexpr std::uint64_t max_note_bytes = 64 * KiB;
constexpr std::uint32_t xen_elfnote_phys32_entry = 18;
// What Linux takes; PVH images do not say.
constexpr std::uint64_t linux_command_line_limit = 2047;
constexpr std::uint64_t initrd_highest_byte = 0x7fff'ffff;

const char* machine_name(std::uint16_t machine) {
    switch (machine) {
        case EM_386:
            return "32-bit x86";
        case EM_AARCH64:
            return "arm64";
        case EM_ARM:
            return "arm";
        case EM_RISCV:
            return "RISC-V";
        case EM_PPC64:
            return "ppc64";
        case EM_S390:
            return "s390x";
        default:
            return "another architecture";
    }
}

Result<Elf64_Ehdr> read_header(const ImageFile& kernel) {
    const auto header = TRY(kernel.load<Elf64_Ehdr>(0));
    if (header.e_ident[EI_DATA] != ELFDATA2LSB || header.e_machine != EM_X86_64)
        return fail("{} is built for {}: Masu runs x86-64 kernels", kernel.name(),
                    header.e_ident[EI_DATA] == ELFDATA2LSB ? machine_name(header.e_machine)
                                                           : "a big-endian machine");
    if (header.e_ident[EI_CLASS] != ELFCLASS64)
        return fail("{} is a 32-bit ELF file: use a kernel built for x86-64", kernel.name());
    if (header.e_type != ET_EXEC && header.e_type != ET_DYN)
        return fail(
            "{} is an ELF file, but not a program (an object file or a core dump?): give "
            "the vmlinux",
            kernel.name());
    if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum == 0 ||
        header.e_phnum > max_program_headers)
        return fail("{} has {} program headers of {} bytes: is it damaged?", kernel.name(),
                    header.e_phnum, header.e_phentsize);
    return header;
}

Result<ElfSegment> read_segment(const ImageFile& kernel, const Elf64_Phdr& header) {
    constexpr std::uint64_t limit = 1ULL << 62;
    if (header.p_filesz > header.p_memsz || header.p_paddr >= limit || header.p_memsz >= limit)
        return fail("{} has a segment of {} bytes at {:#x} for {} bytes of memory: is it damaged?",
                    kernel.name(), header.p_filesz, header.p_paddr, header.p_memsz);
    if (header.p_offset > kernel.size() || header.p_filesz > kernel.size() - header.p_offset)
        return fail(
            "{} is truncated: a segment ends behind the file's {} bytes; fetch or build it "
            "again",
            kernel.name(), kernel.size());
    return ElfSegment{header.p_offset, header.p_filesz, header.p_paddr, header.p_memsz};
}

// The entry point in a note segment's bytes, if it is one of Xen's that says so.
std::optional<std::uint32_t> find_pvh_note(std::span<const std::byte> notes,
                                           std::uint64_t alignment) {
    while (notes.size() >= sizeof(Elf64_Nhdr)) {
        const auto header = load_unaligned<Elf64_Nhdr>(notes.data());
        notes = notes.subspan(sizeof header);
        const auto name_size = align_up(header.n_namesz, alignment);
        const auto content_size = align_up(header.n_descsz, alignment);
        // The last note's padding may be missing.
        if (header.n_namesz > notes.size() || name_size > notes.size() ||
            header.n_descsz > notes.size() - name_size)
            return std::nullopt;
        const bool is_xen = header.n_namesz == 4 && std::memcmp(notes.data(), "Xen", 4) == 0;
        if (is_xen && header.n_type == xen_elfnote_phys32_entry && header.n_descsz >= 4)
            return load_unaligned<std::uint32_t>(notes.data() + name_size);
        notes = notes.subspan(std::min<std::uint64_t>(name_size + content_size, notes.size()));
    }
    return std::nullopt;
}

Result<std::optional<std::uint32_t>> read_note(const ImageFile& kernel, const Elf64_Phdr& header) {
    std::vector<std::byte> notes(std::min(header.p_filesz, max_note_bytes));
    TRY(kernel.read(header.p_offset, notes));
    return find_pvh_note(notes, header.p_align == 8 ? 8 : 4);
}

// start_info.h; all fields little-endian.
struct HvmStartInfo {
    std::uint32_t magic = 0x336e'c578;
    std::uint32_t version = 1;
    std::uint32_t flags = 0;
    std::uint32_t nr_modules = 0;
    std::uint64_t modlist_paddr = 0;
    std::uint64_t cmdline_paddr = 0;
    std::uint64_t rsdp_paddr = 0;
    std::uint64_t memmap_paddr = 0;
    std::uint32_t memmap_entries = 0;
    std::uint32_t reserved = 0;
};
static_assert(sizeof(HvmStartInfo) == 56);

struct HvmModule {
    std::uint64_t paddr = 0;
    std::uint64_t size = 0;
    std::uint64_t cmdline_paddr = 0;
    std::uint64_t reserved = 0;
};
static_assert(sizeof(HvmModule) == 32);

struct HvmMemmapEntry {
    std::uint64_t addr = 0;
    std::uint64_t size = 0;
    std::uint32_t type = 0;
    std::uint32_t reserved = 0;
};
static_assert(sizeof(HvmMemmapEntry) == 24);

// One page from layout::pvh_start_info: the info, its module, the memory map.
bool write_start_info(const DirectBoot& boot, const std::optional<LoadedInitrd>& initrd,
                      const GuestMemory& memory) {
    constexpr GuestAddress info_at{layout::pvh_start_info};
    constexpr GuestAddress module_at = info_at + 0x40;
    constexpr GuestAddress map_at = info_at + 0x80;
    HvmStartInfo info;
    info.cmdline_paddr = layout::command_line;
    info.rsdp_paddr = boot.rsdp;
    bool ok = true;
    if (initrd) {
        info.nr_modules = 1;
        info.modlist_paddr = module_at.value;
        ok = memory.store(module_at,
                          HvmModule{.paddr = initrd->address.value, .size = initrd->size});
    }
    info.memmap_paddr = map_at.value;
    for (const auto& entry : e820_map(memory)) {
        const auto at = map_at + info.memmap_entries * sizeof(HvmMemmapEntry);
        ok = ok && memory.store(at, HvmMemmapEntry{.addr = entry.start,
                                                   .size = entry.size,
                                                   .type = std::to_underlying(entry.type)});
        ++info.memmap_entries;
    }
    return ok && memory.store(info_at, info);
}

}  // namespace

Result<ElfKernel> parse_elf(const ImageFile& kernel) {
    const auto header = TRY(read_header(kernel));
    ElfKernel elf;
    std::optional<std::uint32_t> entry;
    std::uint64_t at = header.e_phoff;
    for (unsigned i = 0; i < header.e_phnum; ++i, at += sizeof(Elf64_Phdr)) {
        const auto program = TRY(kernel.load<Elf64_Phdr>(at));
        if (program.p_type == PT_LOAD && program.p_memsz != 0) {
            elf.segments.push_back(TRY(read_segment(kernel, program)));
            elf.end = std::max(elf.end, program.p_paddr + program.p_memsz);
        } else if (program.p_type == PT_NOTE && !entry) {
            entry = TRY(read_note(kernel, program));
        }
    }
    if (elf.segments.empty())
        return fail("{} has nothing to load: give the vmlinux", kernel.name());
    if (!entry)
        return fail(
            "{} has no PVH entry point: build it with CONFIG_PVH=y, or give the bzImage "
            "(vmlinuz) instead",
            kernel.name());
    elf.pvh_entry = *entry;
    const bool entry_is_loaded =
        std::any_of(elf.segments.begin(), elf.segments.end(), [&](const auto& segment) {
            return *entry >= segment.address && *entry - segment.address < segment.memory_size;
        });
    if (!entry_is_loaded)
        return fail("{} has its PVH entry point {:#x} outside of what it loads: is it damaged?",
                    kernel.name(), *entry);
    return elf;
}

Result<EntryState> load_elf(const ImageFile& kernel, const DirectBoot& boot,
                            const GuestMemory& memory) {
    const auto elf = TRY(parse_elf(kernel));
    TRY(check_command_line(boot.command_line, linux_command_line_limit));
    for (const auto& segment : elf.segments) {
        if (segment.address < layout::high_memory_start)
            return fail("{} wants to be loaded at {:#x}: below 1 MiB there is no room for a kernel",
                        kernel.name(), segment.address);
        if (!memory.slice(GuestAddress{segment.address}, segment.memory_size))
            return fail("{} needs memory up to {} and the VM has {}: give the VM more memory",
                        kernel.name(), format_size(segment.address + segment.memory_size),
                        format_size(memory.total_bytes()));
        const auto place = memory.slice(GuestAddress{segment.address}, segment.file_size);
        if (place)
            TRY(kernel.read(segment.offset, *place));
    }
    const auto initrd = TRY(load_initrd(
        boot.initrd_path,
        {.lowest = elf.end, .highest_byte = initrd_highest_byte, .above_4g = false}, memory));
    if (!write_start_info(boot, initrd, memory))
        return fail("guest memory is too small for the boot parameters");
    return EntryState{EntryMode::Protected32, elf.pvh_entry, layout::pvh_start_info};
}

}  // namespace masu::boot

// Kernels made for tests: a bzImage and an ELF file, right in everything until a test breaks them.
#pragma once

#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/fd.hpp"
#include "devices/guest_memory.hpp"

namespace masu::boot::test {

using Bytes = std::vector<std::byte>;

template <class T>
void put(Bytes& bytes, std::size_t offset, T value) {
    if (bytes.size() < offset + sizeof value)
        bytes.resize(offset + sizeof value);
    store_unaligned(bytes.data() + offset, value);
}

// Protocol 2.15, one setup sector, a payload of 0x3000 bytes of 0xcc, loaded at 16 MiB.
inline Bytes make_bzimage() {
    constexpr std::size_t payload_offset = 0x400;
    constexpr std::size_t payload_size = 0x3000;
    Bytes image(payload_offset + payload_size, std::byte{0xcc});
    std::fill_n(image.begin(), payload_offset, std::byte{0});
    put<std::uint8_t>(image, 0x1f1, 1);
    put<std::uint32_t>(image, 0x1f4, payload_size / 16);
    put<std::uint16_t>(image, 0x1fe, 0xaa55);
    put<std::uint16_t>(image, 0x200, 0x6aeb);  // jump: the header ends at 0x26c
    std::memcpy(image.data() + 0x202, "HdrS", 4);
    put<std::uint16_t>(image, 0x206, 0x020f);
    put<std::uint8_t>(image, 0x211, 1);
    put<std::uint32_t>(image, 0x22c, 0x7fff'ffff);
    put<std::uint32_t>(image, 0x230, 0x20'0000);
    put<std::uint8_t>(image, 0x234, 1);
    put<std::uint16_t>(image, 0x236, 0x3);  // 64-bit entry; may be above 4 GiB
    put<std::uint32_t>(image, 0x238, 2047);
    put<std::uint64_t>(image, 0x258, 0x100'0000);
    put<std::uint32_t>(image, 0x260, 0x80'0000);
    return image;
}

// Two segments at 16 and 17 MiB, and Xen's note with the entry 0x1000040 behind another note.
inline Bytes make_elf() {
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_phoff = sizeof header;
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = 3;
    Bytes image;
    put(image, 0, header);
    const auto segment = [](std::uint32_t type, std::uint64_t offset, std::uint64_t address,
                            std::uint64_t file_size, std::uint64_t memory_size) {
        Elf64_Phdr program{};
        program.p_type = type;
        program.p_offset = offset;
        program.p_paddr = address;
        program.p_filesz = file_size;
        program.p_memsz = memory_size;
        program.p_align = 4;
        return program;
    };
    put(image, 64, segment(PT_LOAD, 0x1000, 0x100'0000, 0x800, 0x1000));
    put(image, 64 + 56, segment(PT_NOTE, 0x200, 0, 0x30, 0x30));
    put(image, 64 + 112, segment(PT_LOAD, 0x1800, 0x110'0000, 0x10, 0x2000));
    put(image, 0x200, Elf64_Nhdr{4, 5, 6});  // a Xen note of another kind; content padded to 8
    image.resize(0x1810, std::byte{0xcc});
    std::memcpy(image.data() + 0x20c, "Xen", 4);
    put(image, 0x218, Elf64_Nhdr{4, 4, 18});
    std::memcpy(image.data() + 0x224, "Xen", 4);
    put<std::uint32_t>(image, 0x228, 0x100'0040);
    put<std::uint32_t>(image, 0x22c, 0);
    return image;
}

// A file in memory, by a path that can be opened as often as wanted.
class TestFile {
  public:
    explicit TestFile(const Bytes& content) : fd_(::memfd_create("test", MFD_CLOEXEC)) {
        if (::write(fd_.get(), content.data(), content.size()) !=
            static_cast<ssize_t>(content.size()))
            fd_.reset();
        path_ = fmt::format("/proc/self/fd/{}", fd_.get());
    }
    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] Fd duplicate() const { return std::move(*fd_.duplicate()); }

  private:
    Fd fd_;
    std::string path_;
};

// RAM of which only touched pages take room.
class TestRam {
  public:
    explicit TestRam(std::uint64_t size) : size_(size) {
        auto made = Mapping::create("test RAM", size, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
        if (made)
            mapping_ = std::move(*made);
    }
    [[nodiscard]] GuestMemory memory() const {
        const auto low = std::min(size_, 3 * GiB);
        std::vector<GuestMemory::Region> regions{{GuestAddress{0}, mapping_.bytes().first(low)}};
        if (size_ > low)
            regions.push_back({GuestAddress{4 * GiB}, mapping_.bytes().subspan(low)});
        return GuestMemory(regions);
    }

  private:
    std::uint64_t size_;
    Mapping mapping_;
};

}  // namespace masu::boot::test

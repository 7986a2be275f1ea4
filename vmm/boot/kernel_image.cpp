#include "vmm/boot/kernel_image.hpp"

#include <algorithm>
#include <array>

#include "base/bytes.hpp"

namespace masu::boot {

namespace {

bool has(std::span<const std::byte> head, std::size_t offset, std::string_view magic) {
    if (head.size() < offset + magic.size())
        return false;
    const auto wanted = std::as_bytes(std::span(magic));
    return std::equal(wanted.begin(), wanted.end(),
                      head.begin() + static_cast<std::ptrdiff_t>(offset));
}

using namespace std::string_view_literals;

struct Lookalike {
    std::size_t offset;
    std::string_view magic;
    const char* verdict;
};

// In order: the more telling first.
constexpr std::array lookalikes{
    Lookalike{56, "ARM\x64"sv, "is a kernel for arm64: Masu runs x86-64 kernels"},
    Lookalike{56, "RSC\x05"sv, "is a kernel for RISC-V: Masu runs x86-64 kernels"},
    Lookalike{4, "zimg"sv,
              "is a compressed EFI image of another architecture: Masu runs x86-64 kernels"},
    Lookalike{0, "MZ"sv,
              "is an EFI program without a Linux boot header (a unified kernel image?): give the "
              "vmlinuz it was built from"},
    Lookalike{0, "\x1f\x8b"sv, "is compressed with gzip: decompress it first"},
    Lookalike{0,
              "\xfd"
              "7zXZ\0"sv,
              "is compressed with xz: decompress it first"},
    Lookalike{0, "\x28\xb5\x2f\xfd"sv, "is compressed with zstd: decompress it first"},
    Lookalike{0, "\x04\x22\x4d\x18"sv, "is compressed with lz4: decompress it first"},
    Lookalike{0, "BZh"sv, "is compressed with bzip2: decompress it first"},
    Lookalike{0, "QFI\xfb"sv, "is a qcow2 disk image: a kernel is wanted here"},
    Lookalike{0, "070701"sv, "is an initramfs (cpio archive): a kernel is wanted here"},
    Lookalike{0x1fe, "\x55\xaa"sv,
              "is a disk image or boot sector: give it as a disk, and a kernel here"},
};

}  // namespace

Result<KernelFormat> detect_kernel(std::span<const std::byte> head, std::string_view name) {
    if (has(head, 0,
            "\x7f"
            "ELF"))
        return KernelFormat::Elf;
    if (has(head, 0x1fe, "\x55\xaa") && has(head, 0x202, "HdrS"))
        return KernelFormat::BzImage;
    for (const auto& lookalike : lookalikes) {
        if (has(head, lookalike.offset, lookalike.magic))
            return fail("{} {}", name, lookalike.verdict);
    }
    return fail(
        "{} is neither a bzImage nor an ELF kernel{}: give the vmlinuz of an x86-64 "
        "distribution, or an uncompressed vmlinux",
        name,
        head.size() < kernel_head_size
            ? fmt::format(" (it has only {} bytes; truncated?)", head.size())
            : "");
}

}  // namespace masu::boot

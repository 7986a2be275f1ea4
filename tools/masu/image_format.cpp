// Magic numbers, and the header fields that let an image name other files.
#include "tools/masu/image_format.hpp"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "base/bytes.hpp"

namespace masu::cli {
namespace {

constexpr std::size_t head_size = 1024;
constexpr std::uint64_t sector = 512;
constexpr std::uint64_t vmdk_descriptor_limit = 1 * MiB;

using Head = std::array<std::byte, head_size>;  // zeros beyond the end of the file

std::string_view text_of(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

bool has(const Head& head, std::size_t at, std::string_view magic) {
    return text_of(head).substr(at, magic.size()) == magic;
}

template <class T>
T big_endian(const Head& head, std::size_t at) {
    const auto value = load_unaligned<T>(&head[at]);
    if constexpr (sizeof(T) == 4)
        return __builtin_bswap32(value);
    else
        return __builtin_bswap64(value);
}

template <class T>
T little_endian(const Head& head, std::size_t at) {
    return load_unaligned<T>(&head[at]);
}

Result<Head> read_head(const ReadAt& read) {
    Head head{};
    [[maybe_unused]] const auto there = TRY(read(0, head));
    return head;
}

// docs/interop/qcow2.txt of QEMU
Result<ImageFormat> judge_qcow2(const Head& head) {
    constexpr std::uint64_t external_data_file = 1U << 2;
    const auto version = big_endian<std::uint32_t>(head, 4);
    if (version != 2 && version != 3)
        return fail(
            "is a qcow image of version {}, and versions 2 and 3 are known; convert it to raw with "
            "qemu-img first",
            version);
    if (big_endian<std::uint64_t>(head, 8) != 0)
        return fail(
            "is a qcow2 image with a backing file, which an untrusted image could point at any "
            "file of this host; make one image of both with `qemu-img convert` where you trust it");
    if (version == 3 && (big_endian<std::uint64_t>(head, 72) & external_data_file) != 0)
        return fail(
            "is a qcow2 image with an external data file, which an untrusted image could point at "
            "any file of this host; make one image of both with `qemu-img convert` where you "
            "trust it");
    if (big_endian<std::uint32_t>(head, 32) != 0)
        return fail("is an encrypted qcow2 image; decrypt it with `qemu-img convert` first");
    return ImageFormat::Qcow2;
}

bool names_a_parent(std::string_view descriptor) {
    constexpr std::string_view key = "parentCID=";
    if (descriptor.find("parentFileNameHint") != std::string_view::npos)
        return true;
    const auto at = descriptor.find(key);
    return at != std::string_view::npos &&
           !descriptor.substr(at + key.size()).starts_with("ffffffff");
}

// VMware's Virtual Disk Format 1.1, section "Hosted Sparse Extents"
Result<ImageFormat> judge_vmdk(const Head& head, const ReadAt& read) {
    if (little_endian<std::uint64_t>(head, 12) == 0)
        return fail(
            "is a VMDK whose data lie in other files, which an untrusted image could point at any "
            "file of this host; make one image of them with `qemu-img convert` where you trust it");
    const auto at = little_endian<std::uint64_t>(head, 28);
    const auto sectors = little_endian<std::uint64_t>(head, 36);
    if (sectors == 0)
        return ImageFormat::Vmdk;
    if (at > UINT64_MAX / sector || sectors > vmdk_descriptor_limit / sector)
        return fail("is a VMDK whose description is too large to be one; is it damaged?");
    std::vector<std::byte> descriptor(sectors * sector);
    descriptor.resize(TRY(read(at * sector, descriptor)));
    if (names_a_parent(text_of(descriptor)))
        return fail(
            "is a VMDK that builds on a parent image, which an untrusted image could point at any "
            "file of this host; make one image of both with `qemu-img convert` where you trust it");
    return ImageFormat::Vmdk;
}

constexpr const char* cut_short = "is cut short: its end is missing; fetch it again";

// Virtual Hard Disk Image Format Specification, "Hard Disk Footer Format": at the end of every VHD,
// and once more at the begin of one that grows.
Result<ImageFormat> judge_vhd(const Head& footer) {
    constexpr std::uint32_t differencing = 4;
    if (big_endian<std::uint32_t>(footer, 60) == differencing)
        return fail("is a differencing VHD, which needs its parent; merge the two first");
    return ImageFormat::Vhd;
}

// qemu-img takes what is missing for zeros.
Result<ImageFormat> judge_vdi(const Head& head, std::uint64_t size) {
    const std::uint64_t data = little_endian<std::uint32_t>(head, 344);
    const std::uint64_t block = little_endian<std::uint32_t>(head, 376);
    const std::uint64_t stored = little_endian<std::uint32_t>(head, 388);
    if (data + block * stored > size)
        return fail("{}", cut_short);
    return ImageFormat::Vdi;
}

struct Foreign {
    std::size_t at;
    std::string_view magic;
    const char* what;
};
constexpr Foreign foreign[] = {
    {0, "# Disk DescriptorFile",
     "is only the description of a VMDK, whose data lie in other files; make one image of them "
     "with `qemu-img convert` where you trust it"},
    {0, {"QED\0", 4}, "is a QED image, which is not supported; convert it to raw with qemu-img"},
    {257, "ustar", "is a tar archive; unpack it, and import the disk image in it"},
    {0, "PK\003\004", "is a zip archive; unpack it, and import the disk image in it"},
    {0, "7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it, and import the disk image in it"},
    {0, "BZh", "is compressed with bzip2, which is not supported; unpack it with bunzip2"},
    {0, "\x04\x22\x4d\x18", "is compressed with lz4, which is not supported; unpack it with unlz4"},
    {0, "\177ELF", "is a program or a kernel, not a disk; a kernel goes to `masu run --kernel`"},
    {0, "<!DOCTYPE", "is a web page; did its download end at an error or a login page?"},
    {0, "<html", "is a web page; did its download end at an error or a login page?"},
};

}  // namespace

Result<Compression> detect_compression(const ReadAt& read) {
    const auto head = TRY(read_head(read));
    if (has(head, 0,
            {"\xfd"
             "7zXZ\0",
             6}))
        return Compression::Xz;
    if (has(head, 0, "\x28\xb5\x2f\xfd"))
        return Compression::Zstd;
    if (has(head, 0, "\x1f\x8b\x08"))
        return Compression::Gzip;
    return Compression::None;
}

Result<ImageFormat> detect_format(const ReadAt& read, std::uint64_t size) {
    const auto head = TRY(read_head(read));
    for (const auto& [at, magic, what] : foreign)
        if (has(head, at, magic))
            return fail("{}", what);
    if (has(head, 0, "QFI\xfb"))
        return judge_qcow2(head);
    if (has(head, 0, "KDMV"))
        return judge_vmdk(head, read);
    if (has(head, 0, "COWD"))
        return ImageFormat::Vmdk;
    if (has(head, 0, "vhdxfile"))
        return ImageFormat::Vhdx;
    if (has(head, 64, "\x7f\x10\xda\xbe"))
        return judge_vdi(head, size);
    Head footer{};
    if (size >= 2 * sector && size % sector == 0) [[maybe_unused]]
        const auto there = TRY(read(size - sector, std::span(footer).first(sector)));
    // A fixed VHD is a raw disk with the footer behind it.
    if (has(footer, 0, "conectix"))
        return judge_vhd(footer);
    if (has(head, 0, "conectix"))
        return fail("{}", cut_short);
    return ImageFormat::Raw;
}

std::string_view word_for(Compression compression) {
    switch (compression) {
        case Compression::Gzip:
            return "gzip";
        case Compression::Xz:
            return "xz";
        case Compression::Zstd:
            return "zstd";
        case Compression::None:
            break;
    }
    return "";
}

std::string_view word_for(ImageFormat format) {
    switch (format) {
        case ImageFormat::Qcow2:
            return "qcow2";
        case ImageFormat::Vmdk:
            return "vmdk";
        case ImageFormat::Vhd:
            return "vhd";
        case ImageFormat::Vhdx:
            return "vhdx";
        case ImageFormat::Vdi:
            return "vdi";
        case ImageFormat::Raw:
            break;
    }
    return "raw";
}

std::string_view qemu_driver(ImageFormat format) {
    return format == ImageFormat::Vhd ? "vpc" : word_for(format);
}

}  // namespace masu::cli

#include "vmm/boot/bzimage.hpp"

#include <algorithm>

#include "base/bytes.hpp"
#include "vmm/boot/e820.hpp"
#include "vmm/boot/initrd.hpp"
#include "vmm/boot/kernel_image.hpp"
#include "vmm/layout.hpp"

namespace masu::boot {

namespace {

// Offsets in the file's first sectors, and the same in the zero page (boot.rst, "The Real-Mode
// Kernel Header"; zero-page.rst).
enum Offset : std::size_t {
    zp_acpi_rsdp_addr = 0x070,
    zp_ext_ramdisk_image = 0x0c0,
    zp_ext_ramdisk_size = 0x0c4,
    zp_e820_entries = 0x1e8,
    hdr_setup_sects = 0x1f1,
    hdr_syssize = 0x1f4,
    hdr_vid_mode = 0x1fa,
    hdr_jump_length = 0x201,
    hdr_magic = 0x202,
    hdr_version = 0x206,
    hdr_type_of_loader = 0x210,
    hdr_loadflags = 0x211,
    hdr_ramdisk_image = 0x218,
    hdr_ramdisk_size = 0x21c,
    hdr_cmd_line_ptr = 0x228,
    hdr_initrd_addr_max = 0x22c,
    hdr_xloadflags = 0x236,
    hdr_cmdline_size = 0x238,
    hdr_pref_address = 0x258,
    hdr_init_size = 0x260,
    hdr_needed_end = 0x264,  // init_size is the last field read here
    hdr_end = 0x290,
    zp_e820_table = 0x2d0,
    zp_size = 0x1000,
};

constexpr std::uint16_t protocol_2_12 = 0x020c;
constexpr std::uint16_t xlf_kernel_64 = 1 << 0;
constexpr std::uint16_t xlf_can_be_loaded_above_4g = 1 << 1;
constexpr std::uint8_t loaded_high = 1 << 0;
constexpr std::uint8_t loader_undefined = 0xff;
constexpr std::uint16_t video_normal = 0xffff;
constexpr std::uint64_t sector = 512;
constexpr std::uint64_t entry_64 = 0x200;
constexpr std::size_t e820_entry_size = 20;

class ZeroPage {
  public:
    template <class T>
    void set(std::size_t offset, T value) {
        static_assert(std::is_trivially_copyable_v<T>);
        store_unaligned(bytes_.data() + offset, value);
    }
    template <class T>
    [[nodiscard]] T get(std::size_t offset) const {
        return load_unaligned<T>(bytes_.data() + offset);
    }
    [[nodiscard]] std::array<std::byte, zp_size>& bytes() { return bytes_; }

  private:
    std::array<std::byte, zp_size> bytes_{};
};

constexpr std::uint32_t low_half(std::uint64_t value) {
    return static_cast<std::uint32_t>(value);
}
constexpr std::uint32_t high_half(std::uint64_t value) {
    return static_cast<std::uint32_t>(value >> 32);
}

ZeroPage make_zero_page(const BzImage& image, const DirectBoot& boot,
                        const std::optional<LoadedInitrd>& initrd, const GuestMemory& memory) {
    ZeroPage page;
    std::copy(image.setup_header.begin(), image.setup_header.end(),
              page.bytes().begin() + hdr_setup_sects);
    page.set(hdr_type_of_loader, loader_undefined);
    page.set(hdr_loadflags,
             static_cast<std::uint8_t>(page.get<std::uint8_t>(hdr_loadflags) | loaded_high));
    page.set(hdr_vid_mode, video_normal);
    page.set(hdr_cmd_line_ptr, low_half(layout::command_line));
    page.set(zp_acpi_rsdp_addr, boot.rsdp);
    if (initrd) {
        page.set(hdr_ramdisk_image, low_half(initrd->address.value));
        page.set(zp_ext_ramdisk_image, high_half(initrd->address.value));
        page.set(hdr_ramdisk_size, low_half(initrd->size));
        page.set(zp_ext_ramdisk_size, high_half(initrd->size));
    }
    const auto map = e820_map(memory);  // a handful, far below the table's 128
    page.set(zp_e820_entries, static_cast<std::uint8_t>(map.size()));
    for (std::size_t at = zp_e820_table; const auto& entry : map) {
        page.set(at, entry.start);
        page.set(at + 8, entry.size);
        page.set(at + 16, entry.type);
        at += e820_entry_size;
    }
    return page;
}

}  // namespace

Result<BzImage> parse_bzimage(std::span<const std::byte> head, std::uint64_t file_size,
                              std::string_view name) {
    const auto truncated = [&] {
        return fail("{} is truncated: it ends at byte {}; fetch or build it again", name,
                    file_size);
    };
    if (head.size() < hdr_version + 2)
        return truncated();
    const auto version = load_unaligned<std::uint16_t>(head.data() + hdr_version);
    if (version < protocol_2_12)
        return fail(
            "{} speaks boot protocol {}.{:02}, Masu needs 2.12: use a kernel of Linux 3.8 "
            "or later",
            name, version >> 8, version & 0xff);
    if (head.size() < hdr_needed_end)
        return truncated();
    const auto field = [&]<class T>(std::size_t offset, T) {
        return load_unaligned<T>(head.data() + offset);
    };
    const auto flags = field(hdr_xloadflags, std::uint16_t{});
    if ((flags & xlf_kernel_64) == 0)
        return fail("{} is a 32-bit kernel: use one built for x86-64 (amd64)", name);

    BzImage image;
    const auto setup_sectors = field(hdr_setup_sects, std::uint8_t{});
    // 0 means 4 for history's sake; the boot sector comes on top.
    image.payload_offset = ((setup_sectors == 0 ? 4 : setup_sectors) + 1ULL) * sector;
    const auto promised = field(hdr_syssize, std::uint32_t{}) * 16ULL;
    // syssize counts 16-byte units, the last of which need not be whole.
    if (image.payload_offset >= file_size || file_size - image.payload_offset + 16 <= promised)
        return truncated();
    image.payload_size = file_size - image.payload_offset;

    image.load_address = field(hdr_pref_address, std::uint64_t{});
    image.memory_size =
        std::max<std::uint64_t>(field(hdr_init_size, std::uint32_t{}), image.payload_size);
    if (image.load_address < layout::high_memory_start ||
        image.load_address >= layout::low_ram_end || !is_aligned(image.load_address, 4 * KiB))
        return fail(
            "{} wants to be loaded at {:#x}, which is no place for a kernel: is it damaged?", name,
            image.load_address);
    image.initrd_highest_byte = field(hdr_initrd_addr_max, std::uint32_t{});
    image.initrd_above_4g = (flags & xlf_can_be_loaded_above_4g) != 0;
    image.command_line_limit = std::min(field(hdr_cmdline_size, std::uint32_t{}),
                                        static_cast<std::uint32_t>(layout::command_line_max - 1));

    const auto header_end = std::min<std::size_t>(
        {hdr_magic + field(hdr_jump_length, std::uint8_t{}), hdr_end, head.size()});
    const auto header = head.subspan(hdr_setup_sects, header_end - hdr_setup_sects);
    std::copy(header.begin(), header.end(), image.setup_header.begin());
    return image;
}

Result<EntryState> load_bzimage(const ImageFile& kernel, const DirectBoot& boot,
                                const GuestMemory& memory) {
    std::array<std::byte, kernel_head_size> head_bytes;
    const auto head = TRY(kernel.read_head(head_bytes));
    const auto image = TRY(parse_bzimage(head, kernel.size(), kernel.name()));
    TRY(check_command_line(boot.command_line, image.command_line_limit));

    if (!memory.slice(GuestAddress{image.load_address}, image.memory_size))
        return fail("{} needs memory up to {} and the VM has {}: give the VM more memory",
                    kernel.name(), format_size(image.load_address + image.memory_size),
                    format_size(memory.total_bytes()));
    const auto place = memory.slice(GuestAddress{image.load_address}, image.payload_size);
    if (!place)
        return fail("{} does not fit into guest memory", kernel.name());
    TRY(kernel.read(image.payload_offset, *place));

    const auto initrd = TRY(load_initrd(boot.initrd_path,
                                        {.lowest = image.load_address + image.memory_size,
                                         .highest_byte = image.initrd_highest_byte,
                                         .above_4g = image.initrd_above_4g},
                                        memory));
    auto page = make_zero_page(image, boot, initrd, memory);
    if (!memory.write(GuestAddress{layout::zero_page}, page.bytes()))
        return fail("guest memory is too small for the boot parameters");
    return EntryState{EntryMode::Long64, image.load_address + entry_64, layout::zero_page};
}

}  // namespace masu::boot

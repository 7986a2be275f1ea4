#include "vmm/boot/loader.hpp"

#include <algorithm>
#include <array>

#include "vmm/boot/bzimage.hpp"
#include "vmm/boot/elf.hpp"
#include "vmm/boot/image_file.hpp"
#include "vmm/boot/kernel_image.hpp"
#include "vmm/layout.hpp"

namespace masu::boot {

namespace {

Result<> write_command_line(std::string_view text, const GuestMemory& memory) {
    constexpr GuestAddress at{layout::command_line};
    if (!memory.write(at, std::as_bytes(std::span(text))) ||
        !memory.store(at + text.size(), std::uint8_t{0}))
        return fail("guest memory is too small for the kernel command line");
    return {};
}

}  // namespace

Result<> check_command_line(std::string_view command_line, std::uint64_t limit) {
    if (command_line.size() > limit)
        return fail("the kernel command line has {} bytes and this kernel takes {}: shorten it",
                    command_line.size(), limit);
    const auto bad = std::find_if(command_line.begin(), command_line.end(), [](char c) {
        const auto code = static_cast<unsigned char>(c);
        return code < 0x20 || code == 0x7f;
    });
    if (bad != command_line.end())
        return fail(
            "the kernel command line has a control character ({:#04x}) at byte {}: remove it",
            static_cast<unsigned char>(*bad), bad - command_line.begin());
    return {};
}

Result<EntryState> load(const DirectBoot& boot, const GuestMemory& memory) {
    const auto kernel = TRY(ImageFile::open("kernel", boot.kernel_path));
    std::array<std::byte, kernel_head_size> head_bytes;
    const auto head = TRY(kernel.read_head(head_bytes));
    const auto format = TRY(detect_kernel(head, kernel.name()));
    const auto entry = TRY(format == KernelFormat::BzImage ? load_bzimage(kernel, boot, memory)
                                                           : load_elf(kernel, boot, memory));
    TRY(write_command_line(boot.command_line, memory));
    TRY(write_entry_tables(memory, entry.mode));
    return entry;
}

}  // namespace masu::boot

#include "firmware/boot/linux_handoff.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "firmware/bytes.hpp"

namespace masu::firmware {

namespace {

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t first_megabyte = 1 << 20;
constexpr std::uint64_t four_gigabytes = std::uint64_t{1} << 32;
constexpr std::uint64_t initrd_padding = 4;
constexpr std::uint64_t max_initrd = std::uint64_t{1} << 31;
constexpr std::size_t max_e820 = 128;

constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t alignment) {
    return (value + alignment - 1) / alignment * alignment;
}

struct Interval {
    std::uint64_t start;
    std::uint64_t end;
};

// Free memory between `low` and `high` (exclusive), without what is taken. With `highest` the top
// of it, else the bottom.
std::optional<std::uint64_t> find_place(std::span<const MemoryRange> map,
                                        std::span<const Interval> taken, std::uint64_t size,
                                        std::uint64_t alignment, std::uint64_t low,
                                        std::uint64_t high, bool highest) {
    std::optional<std::uint64_t> best;
    const auto offer = [&](std::uint64_t start, std::uint64_t end) {
        start = align_up(std::max(start, low), alignment);
        end = std::min(end, high);
        if (start >= end || end - start < size)
            return;
        const std::uint64_t place = highest ? (end - size) / alignment * alignment : start;
        if (place < start)
            return;
        if (!best || (highest ? place > *best : place < *best))
            best = place;
    };
    for (const auto& range : map) {
        if (range.kind != MemoryKind::Free || range.size > ~std::uint64_t{0} - range.start)
            continue;
        // What is taken cuts the range; the few places are tried from each cut on.
        std::uint64_t start = range.start;
        const std::uint64_t end = range.start + range.size;
        while (start < end) {
            std::uint64_t stop = end;
            std::uint64_t next = end;
            for (const auto& one : taken) {
                if (one.end <= start || one.start >= end)
                    continue;
                if (one.start <= start) {
                    stop = start;
                    next = std::max(one.end, start);
                    break;
                }
                if (one.start < stop) {
                    stop = one.start;
                    next = one.end;
                }
            }
            offer(start, stop);
            start = next;
        }
    }
    return best;
}

bool is_free(std::span<const MemoryRange> map, std::uint64_t start, std::uint64_t size) {
    // Neighbouring free ranges count as one.
    std::uint64_t at = start;
    for (const auto& range : map)
        if (range.kind == MemoryKind::Free && range.start <= at && at - range.start < range.size)
            if (at = range.start + range.size; at - start >= size)
                return true;
    return false;
}

std::uint32_t e820_type(MemoryKind kind) {
    switch (kind) {
        case MemoryKind::Free:
        case MemoryKind::Firmware:
            return 1;
        case MemoryKind::AcpiReclaim:
            return 3;
        case MemoryKind::AcpiNvs:
            return 4;
        case MemoryKind::Reserved:
            break;
    }
    return 2;
}

template <class T>
void store(std::span<std::byte> to, std::size_t offset, T value) {
    std::memcpy(to.data() + offset, &value, sizeof value);
}

// Neighbours of one type become one entry; what does not fit is an error, for the kernel would take
// it for missing memory.
Result<> write_e820(std::span<std::byte> zero_page, std::span<const MemoryRange> map) {
    constexpr std::size_t count_offset = 0x1e8;
    constexpr std::size_t table_offset = 0x2d0;
    constexpr std::size_t entry_size = 20;
    std::size_t count = 0;
    std::uint64_t last_end = 0;
    std::uint32_t last_type = 0;
    for (const auto& range : map) {
        if (range.size == 0)
            continue;
        const std::size_t last = table_offset + (count - 1) * entry_size;
        const std::uint32_t type = e820_type(range.kind);
        if (count != 0 && last_end == range.start && last_type == type) {
            store(zero_page, last + 8, load_le<std::uint64_t>(zero_page, last + 8) + range.size);
        } else {
            if (count == max_e820)
                return fail(ErrorCode::TooLarge, "the memory map has more than 128 ranges");
            const std::size_t at = table_offset + count * entry_size;
            store(zero_page, at, range.start);
            store(zero_page, at + 8, range.size);
            store(zero_page, at + 16, type);
            ++count;
        }
        last_end = range.start + range.size;
        last_type = type;
    }
    store(zero_page, count_offset, static_cast<std::uint8_t>(count));
    return {};
}

Result<Node> open_regular(std::span<const BootDevice> devices, const BootFile& file,
                          std::uint64_t& size) {
    if (file.device >= devices.size())
        return fail(ErrorCode::Invalid, "it is on a device that does not exist");
    FileSystem& fs = *devices[file.device].fs;
    const Node node = TRY(fs.open(file.path));
    const FileInfo info = TRY(fs.stat(node));
    if (info.type != FileType::Regular)
        return fail(ErrorCode::IsDirectory, "it is no regular file");
    size = info.size;
    return node;
}

Result<> read_all(FileSystem& fs, const Node& node, std::uint64_t offset, std::span<std::byte> to) {
    const std::size_t got = TRY(fs.read(node, offset, to));
    if (got != to.size())
        return fail(ErrorCode::Corrupt, "the file is shorter than it says", got);
    return {};
}

}  // namespace

Result<KernelHeader> parse_kernel(std::span<const std::byte> head,
                                  std::uint64_t file_size) noexcept {
    if (head.size() < kernel_head_size || load_le<std::uint16_t>(head, 0x1fe) != 0xaa55 ||
        load_le<std::uint32_t>(head, 0x202) != 0x5372'6448)
        return fail(ErrorCode::Unsupported, "it is not a Linux bzImage");
    if (load_le<std::uint16_t>(head, 0x206) < 0x20c)
        return fail(ErrorCode::Unsupported, "the kernel's boot protocol is older than 2.12",
                    load_le<std::uint16_t>(head, 0x206));
    const auto load_flags = load_le<std::uint16_t>(head, 0x236);
    constexpr std::uint16_t kernel_64 = 1, above_4g = 2;
    if ((load_flags & kernel_64) == 0)
        return fail(ErrorCode::Unsupported, "it is a 32-bit kernel");
    const std::uint64_t setup_sectors = load_le<std::uint8_t>(head, 0x1f1);
    KernelHeader kernel;
    kernel.payload_offset = ((setup_sectors == 0 ? 4 : setup_sectors) + 1) * 512;
    kernel.payload_size = std::uint64_t{load_le<std::uint32_t>(head, 0x1f4)} * 16;
    // The last 16 bytes that the size counts may not be there.
    if (file_size <= kernel.payload_offset ||
        kernel.payload_size > file_size - kernel.payload_offset + 16)
        return fail(ErrorCode::Corrupt, "the kernel is truncated", file_size);
    kernel.payload_size = std::min(kernel.payload_size, file_size - kernel.payload_offset);
    kernel.preferred_address = load_le<std::uint64_t>(head, 0x258);
    kernel.memory_size =
        std::max<std::uint64_t>(load_le<std::uint32_t>(head, 0x260), kernel.payload_size);
    if (load_le<std::uint8_t>(head, 0x234) != 0)
        kernel.alignment = load_le<std::uint32_t>(head, 0x230);
    if ((kernel.alignment != 0 && !is_power_of_two(kernel.alignment)) ||
        kernel.payload_size < 0x400 || kernel.preferred_address >> 46 != 0)
        return fail(ErrorCode::Corrupt, "the kernel's setup header is absurd");
    kernel.initrd_highest_byte = load_le<std::uint32_t>(head, 0x22c);
    kernel.initrd_above_4g = (load_flags & above_4g) != 0;
    kernel.command_line_limit = load_le<std::uint32_t>(head, 0x238);
    return kernel;
}

Result<HandoffPlan> plan_handoff(const KernelHeader& kernel,
                                 std::span<const std::uint64_t> initrd_sizes,
                                 std::string_view command_line,
                                 std::span<const MemoryRange> map) noexcept {
    HandoffPlan plan{.kernel = kernel};
    if (command_line.size() >
        std::min<std::size_t>(kernel.command_line_limit, max_command_line - 1))
        return fail(ErrorCode::TooLarge, "the command line is longer than the kernel takes",
                    command_line.size());
    for (const auto size : initrd_sizes) {
        if (size > max_initrd)
            return fail(ErrorCode::TooLarge, "the initrd is larger than 2 GiB", size);
        plan.initrd_size = align_up(plan.initrd_size + size, initrd_padding);
    }
    if (plan.initrd_size > max_initrd)
        return fail(ErrorCode::TooLarge, "the initrds are larger than 2 GiB", plan.initrd_size);
    // Kernel first: it is the pickiest.
    plan.kernel_address = kernel.preferred_address;
    if (!is_free(map, plan.kernel_address, kernel.memory_size)) {
        const auto place = kernel.alignment == 0
                               ? std::nullopt
                               : find_place(map, {}, kernel.memory_size, kernel.alignment,
                                            first_megabyte, four_gigabytes, false);
        if (!place)
            return fail(ErrorCode::NoMemory, "the guest's memory has no room for the kernel",
                        kernel.memory_size);
        plan.kernel_address = *place;
    }
    std::array<Interval, 2> taken{
        {{plan.kernel_address, plan.kernel_address + kernel.memory_size}, {0, 0}}};
    if (plan.initrd_size != 0) {
        const std::uint64_t size = align_up(plan.initrd_size, page);
        auto place = find_place(map, taken, size, page, first_megabyte,
                                kernel.initrd_highest_byte + std::uint64_t{1}, true);
        if (!place && kernel.initrd_above_4g)
            place = find_place(map, taken, size, page, first_megabyte, ~std::uint64_t{0}, false);
        if (!place)
            return fail(ErrorCode::NoMemory, "the guest's memory has no room for the initrd",
                        plan.initrd_size);
        plan.initrd_address = *place;
        taken[1] = {*place, *place + size};
    }
    const auto parameters =
        find_place(map, taken, page + max_command_line, page, page, four_gigabytes, false);
    if (!parameters)
        return fail(ErrorCode::NoMemory, "the guest's memory has no room for the command line");
    plan.parameters = *parameters;
    return plan;
}

Result<> load_handoff(const HandoffPlan& plan, std::span<const BootDevice> devices,
                      const BootEntry& entry, std::span<const std::byte> head,
                      std::span<const MemoryRange> map, std::uint64_t rsdp,
                      PhysicalMemory& memory) noexcept {
    std::uint64_t size = 0;
    const Node kernel = TRY(open_regular(devices, entry.kernel, size));
    if (size < plan.kernel.payload_offset + plan.kernel.payload_size)
        return fail(ErrorCode::Corrupt, "the kernel changed while it was read", size);
    TRY(read_all(
        *devices[entry.kernel.device].fs, kernel, plan.kernel.payload_offset,
        memory.at(plan.kernel_address, static_cast<std::size_t>(plan.kernel.payload_size))));
    std::uint64_t used = 0;
    for (std::size_t i = 0; i < entry.initrd_count; ++i) {
        const Node initrd = TRY(open_regular(devices, entry.initrds[i], size));
        if (size > plan.initrd_size - used)
            return fail(ErrorCode::Corrupt, "the initrd changed while it was read", size);
        TRY(read_all(*devices[entry.initrds[i].device].fs, initrd, 0,
                     memory.at(plan.initrd_address + used, static_cast<std::size_t>(size))));
        const std::uint64_t padded =
            std::min(align_up(used + size, initrd_padding), plan.initrd_size);
        const auto padding = memory.at(plan.initrd_address + used + size,
                                       static_cast<std::size_t>(padded - used - size));
        std::ranges::fill(padding, std::byte{0});
        used = padded;
    }
    const auto zero_page = memory.at(plan.parameters, page);
    const auto line = memory.at(plan.parameters + page, max_command_line);
    std::ranges::fill(zero_page, std::byte{0});
    std::ranges::fill(line, std::byte{0});
    const auto text = std::as_bytes(std::span(entry.command_line));  // perhaps of nothing at all
    std::ranges::copy(text.first(std::min<std::size_t>(text.size(), max_command_line - 1)),
                      line.begin());
    // The setup header goes over as it stands in the file, up to its own end.
    const std::size_t header_end =
        std::min<std::size_t>(0x202 + load_le<std::uint8_t>(head, 0x201), 0x290);
    std::memcpy(zero_page.data() + 0x1f1, head.data() + 0x1f1, header_end - 0x1f1);
    constexpr std::uint8_t loader_without_number = 0xff;
    store(zero_page, 0x210, loader_without_number);
    store(zero_page, 0x070, rsdp);
    const auto split = [&](std::uint64_t value, std::size_t low, std::size_t high) {
        store(zero_page, low, static_cast<std::uint32_t>(value));
        store(zero_page, high, static_cast<std::uint32_t>(value >> 32));
    };
    split(plan.initrd_address, 0x218, 0xc0);
    split(plan.initrd_size, 0x21c, 0xc4);
    split(plan.parameters + page, 0x228, 0xc8);
    return write_e820(zero_page, map);
}

std::expected<HandoffPlan, Message> prepare_handoff(std::span<const BootDevice> devices,
                                                    const BootEntry& entry,
                                                    std::span<const MemoryRange> map,
                                                    std::uint64_t rsdp,
                                                    PhysicalMemory& memory) noexcept {
    const auto trouble = [&](const BootFile& file, const Error& error) {
        Message message;
        message.put_visible(file.path);
        if (file.device < devices.size()) {
            message.put(" on ");
            describe(message, devices[file.device]);
        }
        message.put(": ").put(error.reason);
        if (error.value != 0)
            message.put(" (").put(error.value).put(")");
        return std::unexpected(message);
    };
    std::array<std::uint64_t, max_initrds> sizes{};
    for (std::size_t i = 0; i < entry.initrd_count; ++i)
        if (const auto node = open_regular(devices, entry.initrds[i], sizes[i]); !node)
            return trouble(entry.initrds[i], node.error());
    std::uint64_t kernel_size = 0;
    const auto kernel = open_regular(devices, entry.kernel, kernel_size);
    if (!kernel)
        return trouble(entry.kernel, kernel.error());
    std::array<std::byte, kernel_head_size> head{};
    const auto got = devices[entry.kernel.device].fs->read(*kernel, 0, head);
    if (!got)
        return trouble(entry.kernel, got.error());
    const auto header = parse_kernel(std::span(head).first(*got), kernel_size);
    if (!header)
        return trouble(entry.kernel, header.error());
    const auto plan =
        plan_handoff(*header, std::span(sizes).first(entry.initrd_count), entry.command_line, map);
    if (!plan)
        return trouble(entry.kernel, plan.error());
    if (const auto loaded = load_handoff(*plan, devices, entry, head, map, rsdp, memory); !loaded)
        return trouble(entry.kernel, loaded.error());
    return *plan;
}

}  // namespace masu::firmware

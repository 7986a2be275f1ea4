#include "firmware/boot/boot_entry.hpp"

namespace masu::firmware {

namespace {

constexpr std::uint64_t max_config = std::uint64_t{1} << 20;

bool opens(std::span<const BootDevice> devices, const BootFile& file) {
    if (file.device >= devices.size())
        return false;
    FileSystem& fs = *devices[file.device].fs;
    const auto node = fs.open(file.path);
    if (!node)
        return false;
    const auto info = fs.stat(*node);
    return info && info->type == FileType::Regular;
}

}  // namespace

void describe(Message& to, std::uint32_t disk, std::uint32_t partition) noexcept {
    to.put("disk ").put(disk + 1U);
    if (partition != 0)
        to.put(" partition ").put(partition);
}

void describe(Message& to, const BootDevice& device) noexcept {
    describe(to, device.disk, device.partition);
    to.put(" (").put(device.fs->type()).put(")");
}

void check_files(BootEntry& entry, std::span<const BootDevice> devices) noexcept {
    if (entry.problem != nullptr)
        return;
    if (!opens(devices, entry.kernel)) {
        entry.problem = "the kernel cannot be opened";
        entry.problem_detail = entry.kernel.path;
        return;
    }
    for (std::size_t i = 0; i < entry.initrd_count; ++i) {
        if (opens(devices, entry.initrds[i]))
            continue;
        entry.problem = "the initrd cannot be opened";
        entry.problem_detail = entry.initrds[i].path;
        return;
    }
}

Result<std::string_view> read_text(FileSystem& fs, std::string_view path, Arena& arena) noexcept {
    const Node node = TRY(fs.open(path));
    const FileInfo info = TRY(fs.stat(node));
    if (info.type != FileType::Regular)
        return fail(ErrorCode::IsDirectory, "it is no regular file");
    if (info.size > max_config)
        return fail(ErrorCode::TooLarge, "the file is larger than 1 MiB", info.size);
    if (info.size == 0)
        return std::string_view{};
    const std::size_t mark = arena.mark();
    const auto bytes = arena.make_array<char>(static_cast<std::size_t>(info.size));
    if (bytes.empty())
        return fail(ErrorCode::NoMemory, "no memory left for the file", info.size);
    const auto got = fs.read(node, 0, std::as_writable_bytes(bytes));
    if (!got) {
        arena.rewind(mark);
        return std::unexpected(got.error());
    }
    return std::string_view{bytes.data(), *got};
}

}  // namespace masu::firmware

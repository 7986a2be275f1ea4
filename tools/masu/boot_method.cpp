// Looks at partitions and file systems through the firmware's own readers.
#include "tools/masu/boot_method.hpp"

#include <array>
#include <cstddef>
#include <optional>
#include <vector>

#include "base/bytes.hpp"
#include "firmware/fs/file_system.hpp"
#include "firmware/fs/partitions.hpp"

namespace masu::cli {
namespace {

namespace fw = masu::firmware;

constexpr std::uint32_t sector = 512;
constexpr std::size_t arena_size = 4 * MiB;
constexpr const char* loader_path = "/EFI/BOOT/BOOTX64.EFI";
// Where boot loaders of images without an EFI partition keep what they would start; the file system
// may be the root's or one that is mounted at /boot.
constexpr const char* menu_paths[] = {
    "/boot/grub/grub.cfg", "/boot/grub2/grub.cfg",    "/grub/grub.cfg",
    "/grub2/grub.cfg",     "/boot/loader/entries",    "/loader/entries",
    "/boot/extlinux.conf", "/extlinux/extlinux.conf", "/boot/extlinux/extlinux.conf",
    "/boot/syslinux.cfg",  "/syslinux/syslinux.cfg",  "/boot/syslinux/syslinux.cfg"};

// An image file as the firmware sees a disk. Remembers the first error of the file itself.
class FileDisk final : public fw::BlockReader {
  public:
    FileDisk(const ReadAt& read, std::uint64_t size) : read_(&read), blocks_(size / sector) {}

    [[nodiscard]] std::uint32_t block_size() const noexcept override { return sector; }
    [[nodiscard]] std::uint64_t block_count() const noexcept override { return blocks_; }
    [[nodiscard]] fw::Result<> read(std::uint64_t lba, std::span<std::byte> to) noexcept override {
        if (!fw::contains(*this, lba, to.size() / sector))
            return fw::fail(fw::ErrorCode::Io, "lies outside the disk");
        const auto got = (*read_)(lba * sector, to);
        if (!got && !error)
            error = got.error();
        if (!got || *got != to.size())
            return fw::fail(fw::ErrorCode::Io, "cannot be read");
        return {};
    }

    std::optional<Error> error;

  private:
    const ReadAt* read_;
    std::uint64_t blocks_;
};

std::string_view word_for(fw::Scheme scheme) {
    switch (scheme) {
        case fw::Scheme::Gpt:
            return "gpt";
        case fw::Scheme::Mbr:
            return "mbr";
        case fw::Scheme::None:
            break;
    }
    return "none";
}

bool has_file(fw::FileSystem& files, const char* path) {
    return files.open(path).has_value();
}

// Fills in what one file system, on a partition or on the whole disk, says; true when that is all.
bool judge(fw::BlockReader& volume, const std::string& where, bool may_be_esp, fw::Arena& arena,
           BootMethod& method) {
    const auto mark = arena.mark();
    const auto files = fw::mount(volume, arena);
    if (files && may_be_esp && (*files)->type().starts_with("fat") &&
        has_file(**files, loader_path)) {
        method.kind = BootKind::Uefi;
        method.detail = fmt::format("EFI/BOOT/BOOTX64.EFI on {}", where);
    } else if (files && method.kind == BootKind::Unknown) {
        for (const auto* path : menu_paths)
            if (method.kind == BootKind::Unknown && has_file(**files, path)) {
                method.kind = BootKind::Menu;
                method.detail = fmt::format("{} on {} ({})", path, where, (*files)->type());
            }
    }
    if (files && method.detail.empty())
        method.detail = fmt::format("a {} file system on {}", (*files)->type(), where);
    arena.rewind(mark);
    return method.kind == BootKind::Uefi;
}

}  // namespace

Result<BootMethod> detect_boot_method(const ReadAt& read, std::uint64_t size) {
    BootMethod method;
    method.partition_table = "none";
    std::vector<std::byte> memory(arena_size);
    fw::Arena arena(memory);
    FileDisk disk(read, size);
    const auto table = fw::read_partitions(disk, arena);
    if (!table) {
        method.detail = fmt::format("a partition table that {}", table.error().reason);
    } else if (table->scheme == fw::Scheme::None) {
        judge(disk, "the whole disk", true, arena, method);
    } else {
        method.partition_table = word_for(table->scheme);
        for (const auto& partition : table->partitions) {
            if (partition.rejected != nullptr)
                continue;
            fw::PartitionReader volume(disk, partition.first_lba, partition.block_count);
            if (judge(volume, fmt::format("partition {}", partition.number), fw::is_esp(partition),
                      arena, method))
                break;
        }
    }
    if (disk.error)
        return std::unexpected(*disk.error);
    if (method.detail.empty())
        method.detail = "nothing that Masu knows how to start";
    return method;
}

std::string_view word_for(BootKind kind) {
    switch (kind) {
        case BootKind::Uefi:
            return "uefi";
        case BootKind::Menu:
            return "menu";
        case BootKind::Unknown:
            break;
    }
    return "unknown";
}

BootKind boot_kind_from(std::string_view word) {
    return word == "uefi" ? BootKind::Uefi : word == "menu" ? BootKind::Menu : BootKind::Unknown;
}

}  // namespace masu::cli

// Simple File System (UEFI 13.4, 13.5) on the FAT reader. Read-only: the monitor's guest may write
// to the partition later, its firmware never does.
#include <algorithm>

#include "firmware/fs/file_system.hpp"
#include "firmware/platform/say.hpp"
#include "firmware/protocols/disks.hpp"
#include "firmware/protocols/file_names.hpp"
#include "firmware/services/handles.hpp"
#include "firmware/services/memory.hpp"

namespace masu::firmware {

using efi::File;
using efi::Status;

namespace {

struct Mount {
    efi::SimpleFileSystem protocol{};  // first
    PartitionReader* reader = nullptr;
    FileSystem* files = nullptr;
    unsigned complaints = 0;
};

struct OpenFile {
    File protocol{};  // first
    Mount* mount = nullptr;
    Node node{};
    firmware::FileInfo info{};
    char name[max_path] = {};  // from the root, with '/' before each name; empty: the root
    std::uint64_t position = 0;  // of a directory: the cursor of next()
};

OpenFile& open_file(File* self) noexcept {
    return *reinterpret_cast<OpenFile*>(self);
}

Status to_status(const Error& error) noexcept {
    switch (error.code) {
        case ErrorCode::NotFound:
        case ErrorCode::NotDirectory:
            return Status::NotFound;
        case ErrorCode::Io:
            return Status::DeviceError;
        case ErrorCode::NoMemory:
            return Status::OutOfResources;
        case ErrorCode::Invalid:
        case ErrorCode::IsDirectory:
            return Status::InvalidParameter;
        default:
            return Status::VolumeCorrupted;
    }
}

constexpr unsigned max_complaints = 4;  // of one file system: loaders try again and again

// The caller gets a number; damage is told to the person at the console too.
Status failed(Mount& mount, const Error& error) noexcept {
    const auto status = to_status(error);
    if ((status == Status::VolumeCorrupted || status == Status::DeviceError) &&
        mount.complaints++ < max_complaints)
        say("a FAT file system cannot be read: ", std::string_view(error.reason));
    return status;
}

Status open_path(Mount& mount, std::string_view path, File** to) noexcept;

Status EFIAPI file_open(File* self, File** to, const char16_t* name, std::uint64_t mode,
                        std::uint64_t) {
    if (to == nullptr || name == nullptr)
        return Status::InvalidParameter;
    auto& from = open_file(self);
    char path[max_path];
    const auto resolved = resolve_path(from.name, name, path);
    if (!resolved)
        return Status::NotFound;
    if (mode != efi::file_mode_read && mode != (efi::file_mode_read | efi::file_mode_write) &&
        mode != (efi::file_mode_read | efi::file_mode_write | efi::file_mode_create))
        return Status::InvalidParameter;
    // 13.5.2: what exists is found before its being read-only is told.
    const auto status = open_path(*from.mount, *resolved, to);
    const bool writes = (mode & efi::file_mode_write) != 0;
    if (status == Status::Success && writes) {
        (void)(*to)->close(*to);
        *to = nullptr;
        return Status::WriteProtected;
    }
    if (status == Status::NotFound && (mode & efi::file_mode_create) != 0)
        return Status::WriteProtected;
    return status;
}

Status EFIAPI file_close(File* self) {
    (void)free_pool(self);
    return Status::Success;
}

Status EFIAPI file_delete(File* self) {
    (void)free_pool(self);
    return Status::WarnDeleteFailure;
}

efi::Time to_time(std::int64_t seconds) noexcept {
    efi::Time time{};
    const auto day_seconds = static_cast<std::uint64_t>(seconds < 0 ? 0 : seconds);
    const auto date = civil_from_days(day_seconds / 86400);
    time.year = date.year;
    time.month = date.month;
    time.day = date.day;
    time.hour = static_cast<std::uint8_t>(day_seconds / 3600 % 24);
    time.minute = static_cast<std::uint8_t>(day_seconds / 60 % 60);
    time.second = static_cast<std::uint8_t>(day_seconds % 60);
    time.time_zone = efi::unspecified_time_zone;
    return time;
}

// EFI_FILE_INFO of 13.5.16 into the caller's buffer.
Status write_info(const firmware::FileInfo& info, std::string_view name, std::uint32_t cluster,
                  std::uint64_t* size, void* to) noexcept {
    char16_t wide[max_path];
    const std::size_t units = to_utf16(name, wide);
    const std::uint64_t needed = sizeof(efi::FileInfo) + (units + 1) * sizeof(char16_t);
    const bool fits = *size >= needed;
    *size = needed;
    if (!fits)
        return Status::BufferTooSmall;
    if (to == nullptr)
        return Status::InvalidParameter;
    const bool directory = info.type == FileType::Directory;
    efi::FileInfo head{};
    head.size = needed;
    head.file_size = directory ? 0 : info.size;
    head.physical_size = (head.file_size + cluster - 1) / cluster * cluster;
    head.create_time = head.last_access_time = head.modification_time = to_time(info.modified);
    head.attribute = (info.fat_attributes & 0x27U) | (directory ? efi::file_directory : 0);
    std::memcpy(to, &head, sizeof head);
    wide[units] = 0;
    std::memcpy(static_cast<std::byte*>(to) + sizeof head, wide, (units + 1) * sizeof(char16_t));
    return Status::Success;
}

Status read_directory(OpenFile& file, std::uint64_t* size, void* to) noexcept {
    DirectoryEntry entry;
    std::uint64_t cursor = file.position;
    auto& files = *file.mount->files;
    const auto more = files.next(file.node, cursor, entry);
    if (!more)
        return failed(*file.mount, more.error());
    if (!*more) {
        *size = 0;
        return Status::Success;
    }
    const auto info = files.stat(entry.node);
    if (!info)
        return failed(*file.mount, info.error());
    const auto status = write_info(*info, entry.name(), files.block_size(), size, to);
    if (status == Status::Success)
        file.position = cursor;
    return status;
}

Status EFIAPI file_read(File* self, std::uint64_t* size, void* to) {
    auto& file = open_file(self);
    if (size == nullptr || (to == nullptr && *size != 0))
        return Status::InvalidParameter;
    if (file.info.type == FileType::Directory)
        return read_directory(file, size, to);
    if (file.position > file.info.size)
        return Status::DeviceError;
    const std::uint64_t wanted = std::min(*size, file.info.size - file.position);
    const auto got = file.mount->files->read(
        file.node, file.position, {static_cast<std::byte*>(to), static_cast<std::size_t>(wanted)});
    if (!got)
        return failed(*file.mount, got.error());
    file.position += *got;
    *size = *got;
    return Status::Success;
}

Status EFIAPI file_write(File* self, std::uint64_t* size, const void*) {
    if (size == nullptr)
        return Status::InvalidParameter;
    return open_file(self).info.type == FileType::Directory ? Status::Unsupported
                                                            : Status::WriteProtected;
}

Status EFIAPI file_get_position(File* self, std::uint64_t* position) {
    auto& file = open_file(self);
    if (position == nullptr)
        return Status::InvalidParameter;
    if (file.info.type == FileType::Directory)
        return Status::Unsupported;
    *position = file.position;
    return Status::Success;
}

Status EFIAPI file_set_position(File* self, std::uint64_t position) {
    auto& file = open_file(self);
    if (file.info.type == FileType::Directory && position != 0)
        return Status::Unsupported;
    const bool to_end = position == ~std::uint64_t{0};
    file.position = to_end ? file.info.size : position;
    return Status::Success;
}

Status write_label(const FileSystem& files, std::uint64_t offset, std::uint64_t* size,
                   std::byte* to) noexcept {
    char16_t label[16];
    const std::size_t units = to_utf16(files.label(), label);
    label[units] = 0;
    const std::uint64_t needed = offset + (units + 1) * sizeof(char16_t);
    const bool fits = *size >= needed;
    *size = needed;
    if (!fits)
        return Status::BufferTooSmall;
    if (to == nullptr)
        return Status::InvalidParameter;
    std::memcpy(to + offset, label, (units + 1) * sizeof(char16_t));
    return Status::Success;
}

Status EFIAPI file_get_info(File* self, const efi::Guid* kind, std::uint64_t* size, void* to) {
    if (kind == nullptr || size == nullptr)
        return Status::InvalidParameter;
    auto& file = open_file(self);
    const auto& files = *file.mount->files;
    if (*kind == efi::guid::file_info) {
        std::string_view name(file.name);
        name.remove_prefix(name.rfind('/') + 1);  // npos + 1 is 0
        return write_info(file.info, name, files.block_size(), size, to);
    }
    auto* bytes = static_cast<std::byte*>(to);
    if (*kind == efi::guid::volume_label)
        return write_label(files, 0, size, bytes);
    if (!(*kind == efi::guid::file_system_info))
        return Status::Unsupported;
    const auto status = write_label(files, efi::file_system_info_size, size, bytes);
    if (status != Status::Success)
        return status;
    efi::FileSystemInfo info{};
    info.size = *size;
    info.read_only = 1;
    info.volume_size = files.total_bytes();
    info.block_size = files.block_size();
    std::memcpy(to, &info, efi::file_system_info_size);
    return status;
}

Status EFIAPI file_set_info(File*, const efi::Guid* kind, std::uint64_t, const void* from) {
    if (kind == nullptr || from == nullptr)
        return Status::InvalidParameter;
    const bool known = *kind == efi::guid::file_info || *kind == efi::guid::file_system_info ||
                       *kind == efi::guid::volume_label;
    return known ? Status::WriteProtected : Status::Unsupported;
}

Status EFIAPI file_flush(File*) {
    return Status::Success;
}

Status open_path(Mount& mount, std::string_view path, File** to) noexcept {
    auto node = mount.files->open(path.empty() ? std::string_view("/") : path);
    if (!node)
        return failed(mount, node.error());
    const auto info = mount.files->stat(*node);
    if (!info)
        return failed(mount, info.error());
    auto* file = make<OpenFile>();
    if (file == nullptr)
        return Status::OutOfResources;
    file->protocol = {.revision = 0x10000,
                      .open = file_open,
                      .close = file_close,
                      .remove = file_delete,
                      .read = file_read,
                      .write = file_write,
                      .get_position = file_get_position,
                      .set_position = file_set_position,
                      .get_info = file_get_info,
                      .set_info = file_set_info,
                      .flush = file_flush};
    file->mount = &mount;
    file->node = *node;
    file->info = *info;
    std::ranges::copy(path, file->name);
    *to = &file->protocol;
    return Status::Success;
}

Status EFIAPI open_volume(efi::SimpleFileSystem* self, File** root) {
    if (root == nullptr)
        return Status::InvalidParameter;
    return open_path(*reinterpret_cast<Mount*>(self), {}, root);
}

}  // namespace

bool install_file_system(BlockDevice& device) noexcept {
    constexpr std::uint64_t arena_pages = 96;  // the reader's cache
    auto* memory = allocate_data_pages(arena_pages);
    auto* mount = make<Mount>();
    auto* reader = static_cast<PartitionReader*>(
        allocate_pool(efi::MemoryType::BootServicesData, sizeof(PartitionReader)));
    if (memory == nullptr || mount == nullptr || reader == nullptr)
        return false;
    ::new (static_cast<void*>(reader))
        PartitionReader(*device.blk, device.first_lba, device.block_count);
    auto* arena = make<Arena>(std::span(memory, arena_pages * efi::page_size));
    const auto files = arena == nullptr ? Result<FileSystem*>(fail(ErrorCode::NoMemory, ""))
                                        : mount_fat(*reader, *arena);
    if (!files) {
        free_data_pages(memory, arena_pages);
        (void)free_pool(reader);
        (void)free_pool(mount);
        return false;
    }
    mount->protocol = {.revision = 0x10000, .open_volume = open_volume};
    mount->reader = reader;
    mount->files = *files;
    return install_protocol(device.handle, efi::guid::simple_file_system, &mount->protocol) ==
           Status::Success;
}

}  // namespace masu::firmware

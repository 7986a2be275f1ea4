#include "firmware/services/image_source.hpp"

#include "firmware/efi/device_path.hpp"
#include "firmware/services/handles.hpp"
#include "firmware/services/memory.hpp"

namespace masu::firmware {

using efi::Status;

namespace {

constexpr std::uint64_t max_file = 1ULL << 30;

// 10.3.1: a path that starts with a hard-drive node stands for the partition with that signature.
bool is_short_form(const efi::DevicePath* path) noexcept {
    return path->type == efi::type_media && path->subtype == efi::media_hard_drive &&
           efi::length_of(*path) == sizeof(efi::HardDriveNode);
}

// The partition's handle, whose own path ends in the same node.
efi::Handle find_partition(const efi::DevicePath* node) noexcept {
    for (efi::Handle h = next_handle_with(nullptr, efi::guid::simple_file_system); h != nullptr;
         h = next_handle_with(h, efi::guid::simple_file_system)) {
        const auto* own = find_interface<efi::DevicePath>(h, efi::guid::device_path);
        const auto length = own == nullptr ? std::nullopt : efi::path_length(own);
        if (!length || *length < sizeof(efi::HardDriveNode))
            continue;
        const auto* last = efi::at_offset(own, *length - sizeof(efi::HardDriveNode));
        if (std::memcmp(last, node, sizeof(efi::HardDriveNode)) == 0)
            return h;
    }
    return nullptr;
}

Status read_all(efi::File* file, ImageSource& source) noexcept {
    alignas(8) std::byte buffer[sizeof(efi::FileInfo) + 1024];
    std::uint64_t size = sizeof buffer;
    auto status = file->get_info(file, &efi::guid::file_info, &size, buffer);
    if (status != Status::Success)
        return status;
    efi::FileInfo info{};
    std::memcpy(&info, buffer, sizeof info);
    if ((info.attribute & efi::file_directory) != 0 || info.file_size == 0)
        return Status::NotFound;
    if (info.file_size > max_file)
        return Status::OutOfResources;
    source.data = allocate_data_pages(efi::pages_for(info.file_size));
    if (source.data == nullptr)
        return Status::OutOfResources;
    source.size = info.file_size;
    std::uint64_t done = info.file_size;
    status = file->read(file, &done, source.data);
    if (status == Status::Success && done != info.file_size)
        status = Status::LoadError;
    return status;
}

Status read_file(efi::Handle device, const efi::DevicePath* rest, ImageSource& source) noexcept {
    char16_t name[1024];
    auto* volume =
        find_interface<efi::SimpleFileSystem>(device, efi::guid::simple_file_system);
    if (volume == nullptr || !efi::file_name_of(rest, name))
        return Status::NotFound;
    efi::File* root = nullptr;
    efi::File* file = nullptr;
    auto status = volume->open_volume(volume, &root);
    if (status != Status::Success)
        return status;
    status = root->open(root, &file, name, efi::file_mode_read, 0);
    if (status == Status::Success) {
        status = read_all(file, source);
        (void)file->close(file);
    }
    (void)root->close(root);
    return status;
}

Status read_load_file(efi::LoadFile* protocol, const efi::DevicePath* rest, bool boot_policy,
                      ImageSource& source) noexcept {
    std::uint64_t size = 0;
    auto status = protocol->load_file(protocol, rest, boot_policy ? 1 : 0, &size, nullptr);
    if (status != Status::BufferTooSmall)
        return efi::is_error(status) ? status : Status::LoadError;
    if (size == 0 || size > max_file)
        return Status::LoadError;
    source.data = allocate_data_pages(efi::pages_for(size));
    if (source.data == nullptr)
        return Status::OutOfResources;
    source.size = size;
    return protocol->load_file(protocol, rest, boot_policy ? 1 : 0, &source.size, source.data);
}

}  // namespace

Status read_source(const efi::DevicePath* path, bool boot_policy, ImageSource& source) noexcept {
    const efi::DevicePath* rest = path;
    auto status = Status::NotFound;
    if (is_short_form(path)) {
        source.device = find_partition(path);
        rest = efi::next_node(path);
        if (source.device != nullptr)
            status = read_file(source.device, rest, source);
    } else if (locate_device_path(efi::guid::simple_file_system, rest, source.device) ==
               Status::Success) {
        status = read_file(source.device, rest, source);
    }
    // 7.4.1: LoadFile2 only when this is no boot choice, LoadFile in either case.
    for (const bool second : {true, false}) {
        const auto& guid = second ? efi::guid::load_file2 : efi::guid::load_file;
        if (status != Status::NotFound || (second && boot_policy))
            continue;
        const efi::DevicePath* behind = path;
        if (locate_device_path(guid, behind, source.device) != Status::Success)
            continue;
        rest = behind;
        status = read_load_file(find_interface<efi::LoadFile>(source.device, guid), rest,
                                boot_policy && !second, source);
    }
    source.file_path = rest;
    if (status != Status::Success)
        free_source(source);
    return status;
}

void free_source(ImageSource& source) noexcept {
    if (source.data != nullptr)
        free_data_pages(source.data, efi::pages_for(source.size));
    source.data = nullptr;
}

}  // namespace masu::firmware

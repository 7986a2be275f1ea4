#include "firmware/services/images.hpp"

#include <algorithm>

#include "firmware/efi/device_path.hpp"
#include "firmware/pe.hpp"
#include "firmware/platform/milestone.hpp"
#include "firmware/platform/say.hpp"
#include "firmware/runtime/runtime.hpp"
#include "firmware/services/handles.hpp"
#include "firmware/services/image_source.hpp"
#include "firmware/services/memory.hpp"

namespace masu::firmware {

using efi::Handle;
using efi::MemoryType;
using efi::Status;

// entry.S: where StartImage goes on when the image returns or exits.
struct JumpBuffer {
    std::uint64_t registers[8];
};
extern "C" int masu_set_jump(JumpBuffer* buffer) __attribute__((returns_twice));
extern "C" [[noreturn]] void masu_long_jump(JumpBuffer* buffer);

namespace {

struct Image {
    efi::LoadedImage loaded{};
    Image* next = nullptr;
    Handle handle = nullptr;
    efi::ImageEntry entry = nullptr;
    efi::DevicePath* path = nullptr;  // a copy of all of it
    std::uint64_t pages = 0;
    bool is_driver = false;
    bool running = false;
    Image* starter = nullptr;  // the image that runs when this one ends
    JumpBuffer jump{};
    Status exit_status = Status::Success;
    std::uint64_t exit_size = 0;
    char16_t* exit_data = nullptr;
};

constinit Image* images = nullptr;
constinit Image* current = nullptr;
constinit Handle own_handle = nullptr;
constinit bool started_any = false;

Image* find_image(Handle handle) noexcept {
    for (auto* image = images; image != nullptr; image = image->next)
        if (image->handle == handle)
            return image;
    return nullptr;
}

efi::DevicePath* copy_path(const efi::DevicePath* path) noexcept {
    const auto length = efi::path_length(path);
    if (!length)
        return nullptr;
    const efi::EndNode end;
    auto* copy = static_cast<std::byte*>(
        allocate_pool(MemoryType::BootServicesData, *length + sizeof end));
    if (copy == nullptr)
        return nullptr;
    std::memcpy(copy, path, *length);
    std::memcpy(copy + *length, &end, sizeof end);
    return reinterpret_cast<efi::DevicePath*>(copy);
}

MemoryType code_type(pe::Subsystem subsystem) noexcept {
    return subsystem == pe::Subsystem::Application ? MemoryType::LoaderCode
                                                   : MemoryType::BootServicesCode;
}

void forget(Image* image) noexcept {
    for (auto** link = &images; *link != nullptr; link = &(*link)->next)
        if (*link == image) {
            *link = image->next;
            break;
        }
    if (image->pages != 0)
        (void)memory_map().free(reinterpret_cast<std::uint64_t>(image->loaded.image_base),
                                image->pages);
    if (image->path != nullptr)
        (void)free_pool(image->path);
    if (image->loaded.file_path != nullptr)
        (void)free_pool(image->loaded.file_path);
    (void)free_pool(image);
}

Status fill(Image& image, std::span<const std::byte> file) noexcept {
    const auto parsed = pe::parse(file);
    if (!parsed) {
        say("not a boot loader: ", std::string_view(parsed.error().reason));
        return parsed.error().code == ErrorCode::Unsupported ? Status::Unsupported
                                                              : Status::LoadError;
    }
    if (parsed->subsystem == pe::Subsystem::RuntimeDriver) {
        say("drivers that stay at run time are not supported");
        return Status::Unsupported;
    }
    const auto type = code_type(parsed->subsystem);
    std::uint64_t address = parsed->preferred_base;
    const std::uint64_t pages = efi::pages_for(parsed->size);
    auto status = Status::NotFound;
    if (!parsed->relocatable)
        status = memory_map().allocate(efi::AllocateType::Address, type, pages, address);
    else
        status = memory_map().allocate(efi::AllocateType::AnyPages, type, pages, address);
    if (status != Status::Success)
        return Status::OutOfResources;
    image.pages = pages;
    auto* memory = reinterpret_cast<std::byte*>(address);
    image.loaded.image_base = memory;
    image.loaded.image_size = parsed->size;
    image.loaded.code_type = type;
    image.loaded.data_type = type == MemoryType::LoaderCode ? MemoryType::LoaderData
                                                            : MemoryType::BootServicesData;
    image.is_driver = parsed->subsystem != pe::Subsystem::Application;
    const auto loaded = pe::load(*parsed, file, {memory, parsed->size}, address);
    if (!loaded) {
        say("cannot load an image: ", std::string_view(loaded.error().reason));
        return Status::LoadError;
    }
    image.entry = reinterpret_cast<efi::ImageEntry>(address + parsed->entry);
    return Status::Success;
}

Status publish(Image& image) noexcept {
    auto status = install_protocol(image.handle, efi::guid::loaded_image, &image.loaded);
    if (status == Status::Success)
        status = install_protocol(image.handle, efi::guid::loaded_image_device_path, image.path);
    return status;
}

void unpublish(Image& image) noexcept {
    const Handle handle = image.handle;
    (void)uninstall_protocol(handle, efi::guid::loaded_image_device_path, image.path);
    (void)uninstall_protocol(handle, efi::guid::loaded_image, &image.loaded);
}

Status load(Handle parent, const efi::DevicePath* path, bool boot_policy,
            std::span<const std::byte> given, Handle& handle) noexcept {
    ImageSource source;
    auto file = given;
    if (given.empty()) {
        if (const auto status = read_source(path, boot_policy, source); status != Status::Success)
            return status;
        file = {source.data, static_cast<std::size_t>(source.size)};
    } else if (path != nullptr) {
        // 7.4.1: the path only says where the buffer's contents came from.
        source.file_path = path;
        const efi::DevicePath* rest = path;
        if (locate_device_path(efi::guid::device_path, rest, source.device) == Status::Success)
            source.file_path = rest;
    }
    auto* image = make<Image>();
    auto status = image == nullptr ? Status::OutOfResources : fill(*image, file);
    if (image != nullptr && status == Status::Success) {
        image->loaded.revision = 0x1000;
        image->loaded.parent = parent;
        image->loaded.system_table = &system_table();
        image->loaded.device = source.device;
        image->path = path == nullptr ? nullptr : copy_path(path);
        image->loaded.file_path =
            source.file_path == nullptr ? nullptr : copy_path(source.file_path);
        status = publish(*image);
    }
    free_source(source);
    if (image == nullptr)
        return status;
    if (status != Status::Success) {
        forget(image);
        return status;
    }
    image->next = images;
    images = image;
    handle = image->handle;
    return status;
}

[[noreturn]] void end_current(Status status) noexcept {
    current->exit_status = status;
    masu_long_jump(&current->jump);
}

Status run(Image& image) noexcept {
    image.starter = current;
    image.running = true;
    current = &image;
    // Returns once more, through end_current().
    if (masu_set_jump(&image.jump) == 0)
        end_current(image.entry(image.handle, &system_table()));
    Image& ended = *current;
    current = ended.starter;
    ended.running = false;
    return ended.exit_status;
}

Status EFIAPI efi_load_image(efi::Bool boot_policy, Handle parent, efi::DevicePath* path,
                             void* source, std::uint64_t size, Handle* image) {
    if (image == nullptr || find_protocol(parent, efi::guid::loaded_image) == nullptr)
        return Status::InvalidParameter;
    if (source == nullptr && path == nullptr)
        return Status::NotFound;
    if (source != nullptr && size == 0)
        return Status::LoadError;
    return load(parent, path, boot_policy != 0,
                {static_cast<const std::byte*>(source), source == nullptr ? 0 : size}, *image);
}

Status EFIAPI efi_start_image(Handle handle, std::uint64_t* exit_size, char16_t** exit_data) {
    auto* image = find_image(handle);
    if (image == nullptr || image->running)
        return Status::InvalidParameter;
    if (!started_any && !image->is_driver)
        milestone(FirmwareEvent::LoaderStarted);
    started_any = started_any || !image->is_driver;
    const auto status = run(*image);
    if (exit_size != nullptr)
        *exit_size = image->exit_size;
    if (exit_data != nullptr)
        *exit_data = image->exit_data;
    else if (image->exit_data != nullptr)
        (void)free_pool(image->exit_data);
    image->exit_data = nullptr;
    // 7.4.2: an application goes when it ends, a driver only when it failed.
    if (!image->is_driver || efi::is_error(status))
        (void)unload_image(handle);
    return status;
}

Status EFIAPI efi_exit(Handle handle, Status status, std::uint64_t size, char16_t* data) {
    auto* image = find_image(handle);
    if (image == nullptr)
        return Status::InvalidParameter;
    if (!image->running)
        return unload_image(handle);
    if (image != current)
        return Status::InvalidParameter;
    image->exit_size = size;
    image->exit_data = data;
    end_current(status);
}

Status EFIAPI efi_unload_image(Handle handle) {
    return unload_image(handle);
}

}  // namespace

Handle firmware_image() noexcept {
    if (own_handle != nullptr)
        return own_handle;
    auto* loaded = make<efi::LoadedImage>();
    if (loaded == nullptr)
        return nullptr;
    loaded->revision = 0x1000;
    loaded->system_table = &system_table();
    loaded->code_type = MemoryType::BootServicesCode;
    loaded->data_type = MemoryType::BootServicesData;
    (void)install_protocol(own_handle, efi::guid::loaded_image, loaded);
    return own_handle;
}

Status load_image(Handle parent, const efi::DevicePath* path, std::span<const std::byte> source,
                  Handle& image) noexcept {
    return load(parent, path, true, source, image);
}

Status start_image(Handle image) noexcept {
    return efi_start_image(image, nullptr, nullptr);
}

Status unload_image(Handle handle) noexcept {
    auto* image = find_image(handle);
    if (image == nullptr)
        return Status::InvalidParameter;
    if (image->running)
        return Status::Unsupported;
    if (image->loaded.unload != nullptr) {
        if (const auto status = image->loaded.unload(handle); status != Status::Success)
            return status;
    }
    close_all_of(handle);
    unpublish(*image);
    forget(image);
    return Status::Success;
}

bool set_load_options(Handle handle, std::span<const char16_t> text) noexcept {
    auto* image = find_image(handle);
    const std::size_t bytes = text.size() * sizeof(char16_t);
    auto* copy = static_cast<std::byte*>(
        allocate_pool(MemoryType::LoaderData, bytes + sizeof(char16_t)));
    if (image == nullptr || copy == nullptr)
        return false;
    std::ranges::copy(std::as_bytes(text), copy);
    std::memset(copy + bytes, 0, sizeof(char16_t));
    image->loaded.load_options = copy;
    image->loaded.load_options_size = static_cast<std::uint32_t>(bytes + sizeof(char16_t));
    return true;
}

const efi::LoadedImage* image_at(std::uint64_t address) noexcept {
    for (auto* image = images; image != nullptr; image = image->next)
        if (address - reinterpret_cast<std::uint64_t>(image->loaded.image_base) <
            image->loaded.image_size)
            return &image->loaded;
    return nullptr;
}

void fill_image_services(efi::BootServices& table) noexcept {
    table.load_image = efi_load_image;
    table.start_image = efi_start_image;
    table.exit = efi_exit;
    table.unload_image = efi_unload_image;
}

}  // namespace masu::firmware

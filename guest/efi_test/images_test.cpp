// LoadImage, StartImage, Exit, UnloadImage, and where images come from: file, buffer, LoadFile2.
#include "guest/efi_test/app.hpp"

namespace efi_test {
namespace {

efi::LoadedImage* own() {
    efi::LoadedImage* loaded = nullptr;
    (void)bs->handle_protocol(self, &efi::guid::loaded_image, reinterpret_cast<void**>(&loaded));
    return loaded;
}

efi::DevicePath* own_path() {
    efi::DevicePath* path = nullptr;
    (void)bs->handle_protocol(self, &efi::guid::loaded_image_device_path,
                              reinterpret_cast<void**>(&path));
    return path;
}

Status start(const char16_t* option, std::uint32_t size) {
    efi::Handle child = nullptr;
    CHECK(bs->load_image(0, self, own_path(), nullptr, 0, &child) == Status::Success);
    efi::LoadedImage* loaded = nullptr;
    CHECK(bs->handle_protocol(child, &efi::guid::loaded_image,
                              reinterpret_cast<void**>(&loaded)) == Status::Success);
    CHECK(loaded->parent == self && loaded->image_base != own()->image_base);
    CHECK(loaded->device == own()->device);
    loaded->load_options = const_cast<char16_t*>(option);
    loaded->load_options_size = size;
    return bs->start_image(child, nullptr, nullptr);
}

// What a LoadFile2 of ours serves.
const std::byte* served;
std::uint64_t served_size;
Status EFIAPI serve(efi::LoadFile*, const efi::DevicePath*, efi::Bool boot_policy,
                    std::uint64_t* size, void* to) {
    if (boot_policy != 0)
        return Status::Unsupported;
    const bool fits = to != nullptr && *size >= served_size;
    *size = served_size;
    if (!fits)
        return Status::BufferTooSmall;
    bs->copy_mem(to, served, served_size);
    return Status::Success;
}

void test_load_file2(const std::byte* file, std::uint64_t size) {
    struct {
        efi::DevicePath vendor{4, 3, {20, 0}};
        efi::Guid guid{0x4d415355, 9, 9, {1}};
        efi::EndNode end{};
    } __attribute__((packed)) path;
    efi::LoadFile protocol{serve};
    efi::Handle handle = nullptr;
    efi::Handle child = nullptr;
    served = file;
    served_size = size;
    auto* as_path = reinterpret_cast<efi::DevicePath*>(&path);
    CHECK(bs->load_image(0, self, as_path, nullptr, 0, &child) == Status::NotFound);
    CHECK(bs->install_multiple_protocol_interfaces(&handle, &efi::guid::device_path, &path,
                                                   &efi::guid::load_file2, &protocol,
                                                   nullptr) == Status::Success);
    // The same device path cannot be on two handles.
    efi::Handle other = nullptr;
    CHECK(bs->install_multiple_protocol_interfaces(&other, &efi::guid::device_path, &path,
                                                   nullptr) == Status::AlreadyStarted);
    CHECK(bs->load_image(0, self, as_path, nullptr, 0, &child) == Status::Success);
    CHECK(bs->unload_image(child) == Status::Success);
    CHECK(bs->unload_image(child) == Status::InvalidParameter);
    CHECK(bs->uninstall_multiple_protocol_interfaces(handle, &efi::guid::device_path, &path,
                                                     &efi::guid::load_file2, &protocol,
                                                     nullptr) == Status::Success);
}

void test_buffer() {
    efi::Handle child = nullptr;
    efi::SimpleFileSystem* volume = nullptr;
    efi::File* root = nullptr;
    efi::File* file = nullptr;
    CHECK(bs->handle_protocol(own()->device, &efi::guid::simple_file_system,
                              reinterpret_cast<void**>(&volume)) == Status::Success);
    CHECK(volume->open_volume(volume, &root) == Status::Success);
    CHECK(root->open(root, &file, u"EFI\\BOOT\\BOOTX64.EFI", 1, 0) == Status::Success);
    constexpr std::uint64_t room = 1 << 20;
    std::uint64_t size = room;
    std::byte* buffer = nullptr;
    CHECK(bs->allocate_pool(efi::MemoryType::LoaderData, room,
                            reinterpret_cast<void**>(&buffer)) == Status::Success);
    CHECK(file->read(file, &size, buffer) == Status::Success && size > 1000 && size < room);
    CHECK(bs->load_image(0, self, nullptr, buffer, size, &child) == Status::Success);
    CHECK(bs->unload_image(child) == Status::Success);
    test_load_file2(buffer, size);
    // Damaged in several ways.
    CHECK(bs->load_image(0, self, nullptr, buffer, 0, &child) == Status::LoadError);
    CHECK(bs->load_image(0, self, nullptr, buffer, 200, &child) == Status::LoadError);
    CHECK(bs->load_image(0, self, nullptr, buffer, size / 2, &child) == Status::LoadError);
    buffer[0] = std::byte{'Z'};
    CHECK(bs->load_image(0, self, nullptr, buffer, size, &child) == Status::LoadError);
    CHECK(bs->free_pool(buffer) == Status::Success);
    CHECK(file->close(file) == Status::Success && root->close(root) == Status::Success);
}

}  // namespace

void test_images() {
    efi::Handle child = nullptr;
    CHECK(start(u"child", 12) == Status::NotReady);
    CHECK(start(u"exit", 10) == Status::Timeout);
    CHECK(bs->load_image(0, self, nullptr, nullptr, 0, &child) == Status::NotFound);
    CHECK(bs->load_image(0, nullptr, own_path(), nullptr, 0, &child) == Status::InvalidParameter);
    CHECK(bs->load_image(0, self, own_path(), nullptr, 0, nullptr) == Status::InvalidParameter);
    CHECK(bs->start_image(&child, nullptr, nullptr) == Status::InvalidParameter);
    CHECK(bs->start_image(self, nullptr, nullptr) == Status::InvalidParameter);
    CHECK(bs->unload_image(self) == Status::Unsupported);
    CHECK(bs->exit(&child, Status::Success, 0, nullptr) == Status::InvalidParameter);
    test_buffer();
}

}  // namespace efi_test

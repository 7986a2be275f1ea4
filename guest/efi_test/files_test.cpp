// Simple File System on the disk that the application came from (see its recipe for what is there).
#include "guest/efi_test/app.hpp"

namespace efi_test {
namespace {

efi::SimpleFileSystem* own_volume() {
    efi::LoadedImage* loaded = nullptr;
    efi::SimpleFileSystem* volume = nullptr;
    (void)bs->handle_protocol(self, &efi::guid::loaded_image, reinterpret_cast<void**>(&loaded));
    (void)bs->handle_protocol(loaded->device, &efi::guid::simple_file_system,
                              reinterpret_cast<void**>(&volume));
    return volume;
}

bool same(const char16_t* a, const char16_t* b) {
    while (*a != 0 && *a == *b) {
        ++a;
        ++b;
    }
    return *a == *b;
}

alignas(8) std::byte buffer[4096];

void test_info(efi::File* file) {
    std::uint64_t size = 10;
    CHECK(file->get_info(file, &efi::guid::file_info, &size, buffer) == Status::BufferTooSmall);
    CHECK(size > sizeof(efi::FileInfo));
    CHECK(file->get_info(file, &efi::guid::file_info, &size, buffer) == Status::Success);
    const auto* info = reinterpret_cast<const efi::FileInfo*>(buffer);
    CHECK(info->size == size && info->file_size == 10 && (info->attribute & efi::file_directory) == 0);
    CHECK(info->modification_time.year >= 2020);
    CHECK(same(reinterpret_cast<const char16_t*>(info + 1), u"A long file name.txt"));
    CHECK(file->get_info(file, &efi::guid::block_io, &size, buffer) == Status::Unsupported);
    CHECK(file->get_info(file, nullptr, &size, buffer) == Status::InvalidParameter);
    size = sizeof buffer;
    CHECK(file->get_info(file, &efi::guid::file_system_info, &size, buffer) == Status::Success);
    CHECK(buffer[8] == std::byte{1});  // read-only
    CHECK(same(reinterpret_cast<const char16_t*>(buffer + 36), u"MASUTEST"));
    CHECK(file->set_info(file, &efi::guid::file_info, 1, buffer) == Status::WriteProtected);
}

void test_reading(efi::File* file) {
    char text[16] = {};
    std::uint64_t size = 4;
    std::uint64_t position = 0;
    CHECK(file->read(file, &size, text) == Status::Success && size == 4 && text[3] == '3');
    CHECK(file->get_position(file, &position) == Status::Success && position == 4);
    size = sizeof text;
    CHECK(file->read(file, &size, text) == Status::Success && size == 6 && text[5] == '9');
    CHECK(file->read(file, &size, text) == Status::Success && size == 0);
    CHECK(file->set_position(file, 8) == Status::Success);
    size = 2;
    CHECK(file->read(file, &size, text) == Status::Success && size == 2 && text[0] == '8');
    CHECK(file->set_position(file, ~std::uint64_t{0}) == Status::Success);
    CHECK(file->get_position(file, &position) == Status::Success && position == 10);
    CHECK(file->set_position(file, 11) == Status::Success);
    CHECK(file->read(file, &size, text) == Status::DeviceError);
    size = 1;
    CHECK(file->write(file, &size, text) == Status::WriteProtected);
    CHECK(file->flush(file) == Status::Success);
}

void test_directory(efi::File* root) {
    efi::File* directory = nullptr;
    efi::File* inner = nullptr;
    efi::File* again = nullptr;
    CHECK(root->open(root, &directory, u"\\dir", 1, 0) == Status::Success);
    std::uint64_t size = 8;
    CHECK(directory->read(directory, &size, buffer) == Status::BufferTooSmall);
    unsigned entries = 0;
    for (size = sizeof buffer; entries < 20; size = sizeof buffer, ++entries) {
        CHECK(directory->read(directory, &size, buffer) == Status::Success);
        if (size == 0)
            break;
    }
    CHECK(entries == 2);
    CHECK(directory->set_position(directory, 5) == Status::Unsupported);
    CHECK(directory->set_position(directory, 0) == Status::Success);
    size = sizeof buffer;
    CHECK(directory->read(directory, &size, buffer) == Status::Success && size > 0);
    std::uint64_t position = 0;
    CHECK(directory->get_position(directory, &position) == Status::Unsupported);
    CHECK(directory->open(directory, &inner, u"sub\\..\\sub\\.\\deep.txt", 1, 0) ==
          Status::Success);
    CHECK(inner->open(inner, &again, u"\\DIR\\a long FILE name.TXT", 1, 0) == Status::Success);
    CHECK(again->close(again) == Status::Success && inner->close(inner) == Status::Success);
    CHECK(directory->open(directory, &inner, u"..\\..\\x", 1, 0) == Status::NotFound);
    CHECK(directory->close(directory) == Status::Success);
}

}  // namespace

void test_files() {
    auto* volume = own_volume();
    efi::File* root = nullptr;
    efi::File* file = nullptr;
    CHECK(volume->open_volume(volume, nullptr) == Status::InvalidParameter);
    CHECK(volume->open_volume(volume, &root) == Status::Success);
    CHECK(root->open(root, &file, u"nothing", 1, 0) == Status::NotFound);
    CHECK(root->open(root, &file, u"dir", 5, 0) == Status::InvalidParameter);
    CHECK(root->open(root, &file, u"dir", 3, 0) == Status::WriteProtected);
    CHECK(root->open(root, &file, u"new", efi::file_mode_create | 3, 0) == Status::WriteProtected);
    CHECK(root->open(root, &file, u"dir\\A long file name.txt", 1, 0) == Status::Success);
    test_info(file);
    test_reading(file);
    CHECK(file->remove(file) == Status::WarnDeleteFailure);
    CHECK(root->open(root, &file, u"dir\\A long file name.txt", 1, 0) == Status::Success);
    CHECK(file->close(file) == Status::Success);
    test_directory(root);
    CHECK(root->close(root) == Status::Success);
}

}  // namespace efi_test

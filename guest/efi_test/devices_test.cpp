// Block I/O, Disk I/O, the console, Serial I/O, Unicode collation, RNG.
#include "guest/efi_test/app.hpp"

namespace efi_test {
namespace {

alignas(4096) std::byte data[16384];
alignas(4096) std::byte other[16384];

template <class T>
T* locate(const efi::Guid& guid) {
    void* found = nullptr;
    return bs->locate_protocol(&guid, nullptr, &found) == Status::Success ? static_cast<T*>(found)
                                                                          : nullptr;
}

void test_block(efi::BlockIo* io) {
    const auto& media = *io->media;
    CHECK(media.present != 0 && media.block_size == 512 && media.last_block > 100);
    CHECK(io->reset(io, 0) == Status::Success);
    CHECK(io->read_blocks(io, media.media_id, 0, 4096, data) == Status::Success);
    CHECK(data[510] == std::byte{0x55} && data[511] == std::byte{0xaa});
    CHECK(io->read_blocks(io, media.media_id + 1, 0, 512, data) == Status::MediaChanged);
    CHECK(io->read_blocks(io, media.media_id, 0, 100, data) == Status::BadBufferSize);
    CHECK(io->read_blocks(io, media.media_id, media.last_block, 1024, data) ==
          Status::InvalidParameter);
    CHECK(io->read_blocks(io, media.media_id, ~std::uint64_t{0}, 512, data) ==
          Status::InvalidParameter);
    CHECK(io->read_blocks(io, media.media_id, 0, 0, data) == Status::Success);
    CHECK(io->read_blocks(io, media.media_id, 0, 512, nullptr) == Status::InvalidParameter);
    CHECK(io->read_blocks(io, media.media_id, media.last_block, 512, data) == Status::Success);
    // The last block is nobody's: written, read, put back.
    bs->set_mem(other, 512, 0x5a);
    CHECK(io->write_blocks(io, media.media_id, media.last_block, 512, other) == Status::Success);
    CHECK(io->flush_blocks(io) == Status::Success);
    CHECK(io->read_blocks(io, media.media_id, media.last_block, 512, other + 512) ==
          Status::Success);
    CHECK(other[512] == std::byte{0x5a} && other[1023] == std::byte{0x5a});
    CHECK(io->write_blocks(io, media.media_id, media.last_block, 512, data) == Status::Success);
}

void test_disk(efi::Handle handle, efi::BlockIo* io) {
    efi::DiskIo* disk = nullptr;
    CHECK(bs->handle_protocol(handle, &efi::guid::disk_io, reinterpret_cast<void**>(&disk)) ==
          Status::Success);
    const auto id = io->media->media_id;
    CHECK(io->read_blocks(io, id, 0, 8192, data) == Status::Success);
    CHECK(disk->read_disk(disk, id, 100, 5000, other) == Status::Success);
    CHECK(other[0] == data[100] && other[410] == std::byte{0x55} && other[4999] == data[5099]);
    CHECK(disk->read_disk(disk, id + 1, 0, 1, other) == Status::MediaChanged);
    CHECK(disk->read_disk(disk, id, ~std::uint64_t{0} - 5, 10, other) == Status::InvalidParameter);
    CHECK(disk->read_disk(disk, id, 0, 10, nullptr) == Status::InvalidParameter);
}

void test_serial() {
    auto* serial = locate<efi::SerialIo>(efi::guid::serial_io);
    CHECK(serial != nullptr && serial->mode->baud_rate == 115200);
    std::uint64_t size = 8;
    CHECK(serial->write(serial, &size, "serial\r\n") == Status::Success && size == 8);
    std::uint32_t control = 0;
    CHECK(serial->get_control(serial, &control) == Status::Success && (control & 0x100) != 0);
    CHECK(serial->set_control(serial, 0x8000'0000) == Status::Unsupported);
    CHECK(serial->set_attributes(serial, 1'000'000, 0, 0, 0, 0, 0) == Status::InvalidParameter);
    CHECK(serial->set_attributes(serial, 0, 0, 1000, 0, 0, 0) == Status::Success);
    size = 1;
    char byte = 0;
    CHECK(serial->read(serial, &size, &byte) == Status::Timeout && size == 0);
}

void test_collation() {
    auto* c = locate<efi::UnicodeCollation>(efi::guid::unicode_collation2);
    CHECK(c != nullptr && c->stri_coll(c, u"Abc", u"aBC") == 0 && c->stri_coll(c, u"a", u"B") < 0);
    CHECK(c->metai_match(c, u"Loader.CONF", u"load*.c?nf") != 0);
    CHECK(c->metai_match(c, u"abab", u"*ab") != 0 && c->metai_match(c, u"b5", u"[a-c][0-4]") == 0);
    char16_t text[] = u"MiXed";
    c->str_lwr(c, text);
    CHECK(text[0] == u'm' && text[2] == u'x');
    c->str_upr(c, text);
    CHECK(text[4] == u'D');
    char fat[8] = {};
    CHECK(c->str_to_fat(c, u"a.b+c", 8, fat) != 0 && fat[0] == 'A' && fat[2] == '_');
    c->fat_to_str(c, 2, "XYZ", text);
    CHECK(text[1] == u'Y' && text[2] == 0);
}

void test_rng() {
    auto* rng = locate<efi::Rng>(efi::guid::rng);
    if (rng == nullptr) {
        print(u"EFI-TEST: no entropy device\r\n");
        return;
    }
    efi::Guid algorithm{};
    std::uint64_t size = 1;
    CHECK(rng->get_info(rng, &size, &algorithm) == Status::BufferTooSmall && size == 16);
    CHECK(rng->get_info(rng, &size, &algorithm) == Status::Success);
    std::uint8_t a[64] = {};
    std::uint8_t b[64] = {};
    CHECK(rng->get_rng(rng, nullptr, sizeof a, a) == Status::Success);
    CHECK(rng->get_rng(rng, &algorithm, sizeof b, b) == Status::Success);
    CHECK(memcmp(a, b, sizeof a) != 0);
    CHECK(rng->get_rng(rng, &efi::guid::block_io, sizeof b, b) == Status::Unsupported);
    CHECK(rng->get_rng(rng, nullptr, 0, b) == Status::InvalidParameter);
}

}  // namespace

void test_blocks() {
    efi::LoadedImage* loaded = nullptr;
    (void)bs->handle_protocol(self, &efi::guid::loaded_image, reinterpret_cast<void**>(&loaded));
    efi::BlockIo* io = nullptr;
    CHECK(bs->handle_protocol(loaded->device, &efi::guid::block_io,
                              reinterpret_cast<void**>(&io)) == Status::Success);
    test_block(io);
    test_disk(loaded->device, io);
    test_rng();
}

void test_console() {
    auto* out = st->con_out;
    std::uint64_t width = 0;
    std::uint64_t height = 0;
    CHECK(out->query_mode(out, 0, &width, &height) == Status::Success);
    CHECK(width == 80 && height == 25);
    CHECK(out->query_mode(out, 5, &width, &height) == Status::Unsupported);
    CHECK(out->test_string(out, u"ok \u2500 \u00e9") == Status::Success);
    CHECK(out->set_attribute(out, 0x1f) == Status::Success && out->mode->attribute == 0x1f);
    CHECK(out->set_attribute(out, 0x100) == Status::Unsupported);
    CHECK(out->set_attribute(out, 0x07) == Status::Success);
    CHECK(out->output_string(out, u"\r\n12345") == Status::Success);
    CHECK(out->mode->cursor_column == 5);
    CHECK(out->output_string(out, u"\b\b\r\n") == Status::Success && out->mode->cursor_column == 0);
    CHECK(out->set_cursor_position(out, 80, 0) == Status::Unsupported);
    CHECK(out->set_cursor_position(out, 0, 24) == Status::Success && out->mode->cursor_row == 24);
    CHECK(out->set_mode(out, 3) == Status::Unsupported);
    CHECK(out->enable_cursor(out, 0) == Status::Success && out->mode->cursor_visible == 0);
    CHECK(out->reset(out, 0) == Status::Success && out->mode->cursor_visible == 1);
    auto* in = st->con_in;
    efi::InputKey key{};
    CHECK(in->reset(in, 0) == Status::Success);
    CHECK(in->read_key(in, &key) == Status::NotReady);
    CHECK(in->read_key(in, nullptr) == Status::InvalidParameter);
    CHECK(bs->check_event(in->wait_for_key) == Status::NotReady);
    auto* extended = locate<efi::SimpleTextInputEx>(efi::guid::simple_text_input_ex);
    efi::KeyData typed{};
    CHECK(extended != nullptr && extended->read_key(extended, &typed) == Status::NotReady);
    CHECK(extended->read_key(extended, nullptr) == Status::InvalidParameter);
    test_serial();
    test_collation();
}

}  // namespace efi_test

// An EFI application that calls every service of the firmware, rightly and wrongly, and reports on
// the console: "EFI-TEST 123 checks, 0 failed". Its load options choose a part: "child" returns at
// once, "exit" leaves through Exit(), "reset" resets, "fault" executes an invalid instruction.
#include "guest/efi_test/app.hpp"

namespace efi_test {

efi::SystemTable* st;
efi::BootServices* bs;
efi::RuntimeServices* rt;
efi::Handle self;

namespace {

unsigned check_count;
unsigned failure_count;

bool option_is(const efi::LoadedImage& image, const char16_t* word) {
    const auto* text = static_cast<const char16_t*>(image.load_options);
    const std::uint32_t units = text == nullptr ? 0 : image.load_options_size / 2;
    std::uint32_t i = 0;
    while (i < units && word[i] != 0 && text[i] == word[i])
        ++i;
    return word[i] == 0 && i > 0 && (i == units || text[i] == 0);
}

}  // namespace

void print(const char16_t* text) {
    (void)st->con_out->output_string(st->con_out, text);
}

void print(std::uint64_t number) {
    char16_t digits[21];
    unsigned at = 20;
    digits[at] = 0;
    do {
        digits[--at] = static_cast<char16_t>(u'0' + number % 10);
        number /= 10;
    } while (number != 0);
    print(digits + at);
}

void check(bool holds, const char16_t* part, unsigned line) {
    ++check_count;
    if (holds)
        return;
    ++failure_count;
    print(u"FAILED ");
    print(part);
    print(u":");
    print(std::uint64_t{line});
    print(u"\r\n");
}

unsigned checks() {
    return check_count;
}

unsigned failures() {
    return failure_count;
}

}  // namespace efi_test

// What the compiler may call.
extern "C" {
void* memcpy(void* __restrict to, const void* __restrict from, std::size_t count) {
    void* const result = to;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    return result;
}
void* memset(void* to, int value, std::size_t count) {
    void* const result = to;
    asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
    return result;
}
int memcmp(const void* a, const void* b, std::size_t count) {
    const auto* x = static_cast<const unsigned char*>(a);
    const auto* y = static_cast<const unsigned char*>(b);
    for (std::size_t i = 0; i < count; ++i)
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    return 0;
}

efi_test::Status EFIAPI efi_main(efi_test::efi::Handle image, efi_test::efi::SystemTable* table) {
    using namespace efi_test;
    st = table;
    bs = table->boot_services;
    rt = table->runtime_services;
    self = image;
    efi::LoadedImage* loaded = nullptr;
    if (bs->handle_protocol(image, &efi::guid::loaded_image, reinterpret_cast<void**>(&loaded)) !=
        Status::Success)
        return Status::Aborted;
    if (option_is(*loaded, u"child"))
        return Status::NotReady;
    if (option_is(*loaded, u"exit")) {
        (void)bs->exit(image, Status::Timeout, 0, nullptr);
        return Status::Aborted;
    }
    if (option_is(*loaded, u"reset"))
        rt->reset_system(efi::ResetType::Cold, Status::Success, 0, nullptr);
    if (option_is(*loaded, u"fault"))
        asm volatile("ud2");
    if (option_is(*loaded, u"return"))
        return Status::Unsupported;
    print(u"EFI-TEST begins\r\n");
    test_memory();
    test_events();
    test_handles();
    test_images();
    test_files();
    test_blocks();
    test_console();
    test_variables();
    test_tables();
    // Nothing can be printed through the firmware after this one.
    test_exit_boot_services();
    return Status::Success;
}
}

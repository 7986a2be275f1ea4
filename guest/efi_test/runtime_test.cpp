// Variables, time, configuration tables, and the end of boot services with a new address map.
#include "guest/efi_test/app.hpp"

namespace efi_test {
namespace {

constexpr efi::Guid vendor{0x4d415355, 7, 7, {1, 2, 3, 4, 5, 6, 7, 8}};
constexpr std::uint32_t boot = efi::variable_boot_access;
constexpr std::uint32_t both = boot | efi::variable_runtime_access;

void* find_table(const efi::Guid& guid) {
    for (std::uint64_t i = 0; i < st->configuration_table_count; ++i)
        if (st->configuration_table[i].guid == guid)
            return st->configuration_table[i].table;
    return nullptr;
}

bool checksum_holds(efi::TableHeader& header) {
    const auto expected = header.crc32;
    std::uint32_t crc = 0;
    header.crc32 = 0;
    (void)bs->calculate_crc32(&header, header.header_size, &crc);
    header.crc32 = expected;
    return crc == expected;
}

void test_values() {
    std::uint32_t attributes = 0;
    char text[16] = {};
    std::uint64_t size = sizeof text;
    CHECK(rt->get_variable(u"None", &vendor, &attributes, &size, text) == Status::NotFound);
    CHECK(rt->set_variable(u"", &vendor, both, 3, "abc") == Status::InvalidParameter);
    CHECK(rt->set_variable(u"V", &vendor, efi::variable_runtime_access, 3, "abc") ==
          Status::InvalidParameter);
    CHECK(rt->set_variable(u"V", &vendor, both | 0x20, 3, "abc") == Status::Unsupported);
    CHECK(rt->set_variable(u"V", &vendor, both, 3, "abc") == Status::Success);
    CHECK(rt->set_variable(u"W", &vendor, boot, 1, "w") == Status::Success);
    size = 1;
    CHECK(rt->get_variable(u"V", &vendor, &attributes, &size, text) == Status::BufferTooSmall);
    CHECK(size == 3);
    CHECK(rt->get_variable(u"V", &vendor, &attributes, &size, text) == Status::Success);
    CHECK(attributes == both && text[2] == 'c');
    CHECK(rt->set_variable(u"V", &vendor, boot, 3, "xyz") == Status::InvalidParameter);
    CHECK(rt->set_variable(u"V", &vendor, both | efi::variable_append, 2, "de") == Status::Success);
    size = sizeof text;
    CHECK(rt->get_variable(u"V", &vendor, nullptr, &size, text) == Status::Success);
    CHECK(size == 5 && text[4] == 'e');
    CHECK(rt->set_variable(u"V", &vendor, both, 1, "z") == Status::Success);
    CHECK(rt->set_variable(u"SecureBoot", &efi::guid::global_variable, both, 1, "\1") ==
          Status::WriteProtected);
    size = 1;
    CHECK(rt->get_variable(u"SecureBoot", &efi::guid::global_variable, nullptr, &size, text) ==
          Status::Success);
    CHECK(text[0] == 0);
}

void test_names() {
    char16_t name[64] = {};
    efi::Guid guid{};
    unsigned seen = 0;
    for (unsigned i = 0; i < 200; ++i) {
        std::uint64_t size = sizeof name;
        const auto status = rt->get_next_variable_name(&size, name, &guid);
        if (status == Status::NotFound)
            break;
        CHECK(status == Status::Success);
        seen += guid == vendor ? 1 : 0;
    }
    CHECK(seen == 2);
    std::uint64_t size = 2;
    name[0] = 0;
    CHECK(rt->get_next_variable_name(&size, name, &guid) == Status::BufferTooSmall && size > 2);
    size = sizeof name;
    name[0] = u'?';
    name[1] = 0;
    CHECK(rt->get_next_variable_name(&size, name, &guid) == Status::InvalidParameter);
    CHECK(rt->set_variable(u"W", &vendor, 0, 0, nullptr) == Status::Success);
    CHECK(rt->set_variable(u"W", &vendor, 0, 0, nullptr) == Status::NotFound);
    std::uint64_t total = 0;
    std::uint64_t left = 0;
    std::uint64_t largest = 0;
    CHECK(rt->query_variable_info(both, &total, &left, &largest) == Status::Success);
    CHECK(total >= left && left >= largest && largest > 1024);
    CHECK(rt->query_variable_info(both, nullptr, &left, &largest) == Status::InvalidParameter);
}

void test_time() {
    efi::Time time{};
    efi::TimeCapabilities capabilities{};
    CHECK(rt->get_time(nullptr, nullptr) == Status::InvalidParameter);
    CHECK(rt->get_time(&time, &capabilities) == Status::Success);
    CHECK(time.year >= 2024 && time.month >= 1 && time.month <= 12 && capabilities.resolution == 1);
    efi::Time wrong = time;
    wrong.month = 13;
    CHECK(rt->set_time(&wrong) == Status::InvalidParameter);
    wrong = time;
    wrong.day = 31;
    wrong.month = 2;
    CHECK(rt->set_time(&wrong) == Status::InvalidParameter);
    efi::Time then = time;
    then.year = 2031;
    then.month = 2;
    then.day = 28;
    CHECK(rt->set_time(&then) == Status::Success);
    CHECK(rt->get_time(&then, nullptr) == Status::Success && then.year == 2031 && then.month == 2);
    CHECK(rt->set_time(&time) == Status::Success);
    std::uint32_t high = 0;
    CHECK(rt->get_next_high_monotonic_count(&high) == Status::Success && high > 0);
    CHECK(rt->update_capsule(nullptr, 0, 0) == Status::Unsupported);
}

}  // namespace

void test_variables() {
    test_values();
    test_names();
    test_time();
}

void test_tables() {
    CHECK(checksum_holds(st->header) && checksum_holds(bs->header) && checksum_holds(rt->header));
    const auto* rsdp = static_cast<const char*>(find_table(efi::guid::acpi20_table));
    CHECK(rsdp != nullptr && memcmp(rsdp, "RSD PTR ", 8) == 0);
    const auto* smbios = static_cast<const char*>(find_table(efi::guid::smbios3_table));
    CHECK(smbios != nullptr && memcmp(smbios, "_SM3_", 5) == 0);
    CHECK(find_table(efi::guid::memory_attributes_table) != nullptr);
    int table = 0;
    CHECK(bs->install_configuration_table(nullptr, &table) == Status::InvalidParameter);
    CHECK(bs->install_configuration_table(&vendor, nullptr) == Status::NotFound);
    CHECK(bs->install_configuration_table(&vendor, &table) == Status::Success);
    CHECK(find_table(vendor) == &table && checksum_holds(st->header));
    CHECK(bs->install_configuration_table(&vendor, nullptr) == Status::Success);
    CHECK(find_table(vendor) == nullptr);
    void* pointer = &table;
    CHECK(rt->convert_pointer(0, &pointer) == Status::Unsupported);
    CHECK(rt->set_virtual_address_map(0, 40, 1, nullptr) == Status::Unsupported);
}

namespace {

alignas(8) std::byte map_buffer[65536];
unsigned exit_calls;
void EFIAPI count_exit(efi::Event, void*) {
    ++exit_calls;
}

// COM1 without the firmware.
void print_raw(const char* text) {
    for (; *text != 0; ++text)
        asm volatile("outb %0, %1" : : "a"(*text), "Nd"(static_cast<std::uint16_t>(0x3f8)));
}

void print_raw(unsigned number) {
    char digits[12];
    unsigned at = 11;
    digits[at] = 0;
    do {
        digits[--at] = static_cast<char>('0' + number % 10);
        number /= 10;
    } while (number != 0);
    print_raw(digits + at);
}

unsigned raw_checks;
unsigned raw_failures;
void raw_check(bool holds, unsigned line) {
    ++raw_checks;
    if (holds)
        return;
    ++raw_failures;
    print_raw("FAILED after ExitBootServices: line ");
    print_raw(line);
    print_raw("\r\n");
}

// The whole of memory a second time, 512 GiB further up: where the runtime services are told to be.
constexpr std::uint64_t virtual_base = 512ULL << 30;

void map_again() {
    std::uint64_t top = 0;
    asm volatile("mov %%cr3, %0" : "=r"(top));
    auto* table = reinterpret_cast<volatile std::uint64_t*>(top & ~0xfffULL);
    table[1] = table[0];
    asm volatile("mov %0, %%cr3" : : "r"(top) : "memory");
}

// The firmware's boot-time code is the kernel's to overwrite: whoever still calls it halts.
void overwrite_boot_code(std::uint64_t size, std::uint64_t stride) {
    constexpr int hlt = 0xf4;
    for (std::uint64_t at = 0; at + stride <= size; at += stride) {
        const auto* d = reinterpret_cast<const efi::MemoryDescriptor*>(map_buffer + at);
        if (d->type == static_cast<std::uint32_t>(efi::MemoryType::BootServicesCode))
            memset(reinterpret_cast<void*>(d->physical_start), hlt, d->page_count * 4096);
    }
}

}  // namespace

void test_exit_boot_services() {
    efi::Event event = nullptr;
    CHECK(bs->create_event(efi::event_exit_boot_services, efi::tpl_callback, count_exit, nullptr,
                           &event) == Status::Success);
    std::uint64_t size = sizeof map_buffer;
    std::uint64_t key = 0;
    std::uint64_t stride = 0;
    std::uint32_t version = 0;
    auto* map = reinterpret_cast<efi::MemoryDescriptor*>(map_buffer);
    CHECK(bs->get_memory_map(&size, map, &key, &stride, &version) == Status::Success);
    CHECK(bs->exit_boot_services(nullptr, key) == Status::InvalidParameter);
    CHECK(bs->exit_boot_services(self, key + 1) == Status::InvalidParameter);
    CHECK(rt->set_variable(u"BootOnly", &vendor, boot, 1, "b") == Status::Success);
    print(u"EFI-TEST leaves boot services\r\n");
    const unsigned before = checks();
    const unsigned failed = failures();
    size = sizeof map_buffer;
    (void)bs->get_memory_map(&size, map, &key, &stride, &version);
    raw_check(bs->exit_boot_services(self, key) == Status::Success, __LINE__);
    overwrite_boot_code(size, stride);
    raw_check(exit_calls == 1, __LINE__);
    raw_check(st->boot_services == nullptr && st->con_out == nullptr, __LINE__);
    char text[4] = {};
    std::uint64_t one = 1;
    raw_check(rt->get_variable(u"BootOnly", &vendor, nullptr, &one, text) == Status::NotFound,
              __LINE__);
    raw_check(rt->get_variable(u"V", &vendor, nullptr, &one, text) == Status::Success, __LINE__);
    raw_check(text[0] == 'z', __LINE__);
    map_again();
    auto* tables = rt;
    for (std::uint64_t at = 0; at + stride <= size; at += stride) {
        auto* d = reinterpret_cast<efi::MemoryDescriptor*>(map_buffer + at);
        d->virtual_start = d->physical_start + virtual_base;
    }
    raw_check(tables->set_virtual_address_map(size, stride, version, map) == Status::Success,
              __LINE__);
    tables = reinterpret_cast<efi::RuntimeServices*>(reinterpret_cast<std::uint64_t>(rt) +
                                                     virtual_base);
    raw_check(reinterpret_cast<std::uint64_t>(tables->get_time) >= virtual_base, __LINE__);
    raw_check(reinterpret_cast<std::uint64_t>(st->runtime_services) >= virtual_base, __LINE__);
    efi::Time time{};
    raw_check(tables->get_time(&time, nullptr) == Status::Success && time.year >= 2024, __LINE__);
    one = 1;
    raw_check(tables->get_variable(u"V", &vendor, nullptr, &one, text) == Status::Success, __LINE__);
    raw_check(tables->set_variable(u"Late", &vendor, both, 1, "l") == Status::Success, __LINE__);
    raw_check(tables->set_virtual_address_map(size, stride, version, map) == Status::Unsupported,
              __LINE__);
    print_raw("\r\nEFI-TEST ");
    print_raw(before + raw_checks);
    print_raw(" checks, ");
    print_raw(failed + raw_failures);
    print_raw(" failed\r\n");
    tables->reset_system(efi::ResetType::Shutdown, Status::Success, 0, nullptr);
}

}  // namespace efi_test

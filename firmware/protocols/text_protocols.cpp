// Unicode Collation 2 (UEFI 13.12), by ASCII's letters only, and Device Path To Text (10.6).
#include "firmware/efi/device_path.hpp"
#include "firmware/protocols/install.hpp"
#include "firmware/services/handles.hpp"
#include "firmware/services/memory.hpp"

namespace masu::firmware {

using efi::Status;
using efi::UnicodeCollation;

namespace {

char16_t lower(char16_t c) noexcept {
    return c >= u'A' && c <= u'Z' ? static_cast<char16_t>(c + 32) : c;
}
char16_t upper(char16_t c) noexcept {
    return c >= u'a' && c <= u'z' ? static_cast<char16_t>(c - 32) : c;
}

std::int64_t EFIAPI stri_coll(UnicodeCollation*, const char16_t* a, const char16_t* b) {
    while (*a != 0 && lower(*a) == lower(*b)) {
        ++a;
        ++b;
    }
    return std::int64_t{lower(*a)} - lower(*b);
}

// One "[...]": the set that `pattern` points behind the bracket of; moved behind its end.
bool in_set(const char16_t*& pattern, char16_t c) noexcept {
    bool found = false;
    while (*pattern != 0 && *pattern != u']') {
        const char16_t low = upper(*pattern++);
        char16_t high = low;
        if (pattern[0] == u'-' && pattern[1] != 0 && pattern[1] != u']') {
            high = upper(pattern[1]);
            pattern += 2;
        }
        found = found || (upper(c) >= low && upper(c) <= high);
    }
    if (*pattern == u']')
        ++pattern;
    return found;
}

// Without recursion: a star that has to give way takes one character more, the last star only.
efi::Bool EFIAPI metai_match(UnicodeCollation*, const char16_t* text, const char16_t* pattern) {
    const char16_t* star = nullptr;
    const char16_t* star_text = nullptr;
    while (*text != 0) {
        const char16_t* next = pattern + 1;
        bool fits = false;
        if (*pattern == u'*') {
            star = ++pattern;
            star_text = text;
            continue;
        }
        if (*pattern == u'[')
            fits = in_set(next, *text);
        else
            fits = *pattern == u'?' || (*pattern != 0 && upper(*pattern) == upper(*text));
        if (fits) {
            pattern = next;
            ++text;
        } else if (star != nullptr) {
            pattern = star;
            text = ++star_text;
        } else {
            return 0;
        }
    }
    while (*pattern == u'*')
        ++pattern;
    return *pattern == 0 ? 1 : 0;
}

void EFIAPI str_lwr(UnicodeCollation*, char16_t* text) {
    for (; *text != 0; ++text)
        *text = lower(*text);
}

void EFIAPI str_upr(UnicodeCollation*, char16_t* text) {
    for (; *text != 0; ++text)
        *text = upper(*text);
}

void EFIAPI fat_to_str(UnicodeCollation*, std::uint64_t size, const char* fat, char16_t* text) {
    for (; size > 0 && *fat != 0; --size)
        *text++ = static_cast<unsigned char>(*fat++);
    *text = 0;
}

efi::Bool EFIAPI str_to_fat(UnicodeCollation*, const char16_t* text, std::uint64_t size,
                            char* fat) {
    constexpr const char16_t* forbidden = u"\"*+,/:;<=>?[\\]|";
    efi::Bool replaced = 0;
    for (; *text != 0 && size > 0; ++text) {
        if (*text == u'.' || *text == u' ')
            continue;
        bool good = *text > 0x20 && *text < 0x7f;
        for (const char16_t* f = forbidden; *f != 0; ++f)
            good = good && *f != *text;
        *fat++ = good ? static_cast<char>(upper(*text)) : '_';
        replaced = good ? replaced : 1;
        --size;
    }
    if (size > 0)
        *fat = 0;
    return replaced;
}

constinit UnicodeCollation collation = {.stri_coll = stri_coll,
                                        .metai_match = metai_match,
                                        .str_lwr = str_lwr,
                                        .str_upr = str_upr,
                                        .fat_to_str = fat_to_str,
                                        .str_to_fat = str_to_fat,
                                        .supported_languages = "en"};

template <class Render>
char16_t* to_pool(Render render) noexcept {
    const std::uint64_t length = render(std::span<char16_t>());
    auto* text = static_cast<char16_t*>(allocate_pool(efi::MemoryType::BootServicesData,
                                                      (length + 1) * sizeof(char16_t)));
    if (text == nullptr)
        return nullptr;
    (void)render(std::span<char16_t>(text, length));
    text[length] = 0;
    return text;
}

char16_t* EFIAPI node_text(const efi::DevicePath* node, efi::Bool, efi::Bool) {
    if (node == nullptr)
        return nullptr;
    return to_pool([&](std::span<char16_t> to) { return efi::node_to_text(node, to); });
}

char16_t* EFIAPI path_text(const efi::DevicePath* path, efi::Bool, efi::Bool) {
    if (path == nullptr)
        return nullptr;
    return to_pool([&](std::span<char16_t> to) { return efi::path_to_text(path, to); });
}

constinit efi::DevicePathToText to_text = {.device_node_to_text = node_text,
                                           .device_path_to_text = path_text};

}  // namespace

bool install_text_protocols() noexcept {
    efi::Handle handle = nullptr;
    return install_protocol(handle, efi::guid::unicode_collation2, &collation) ==
               Status::Success &&
           install_protocol(handle, efi::guid::device_path_to_text, &to_text) == Status::Success;
}

}  // namespace masu::firmware

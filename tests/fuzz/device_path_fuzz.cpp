// Device paths, the text of names, and keys from a terminal: a loader's and a person's bytes.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "firmware/efi/device_path.hpp"
#include "firmware/protocols/file_names.hpp"
#include "firmware/protocols/key_decoder.hpp"

namespace {

using namespace masu::firmware;

// Exactly the bytes that the path may be looked for in, so that a step outside is seen.
void use_path(const std::uint8_t* data, std::size_t size) {
    std::vector<std::uint8_t> bytes(data, data + size);
    const auto* path = reinterpret_cast<const efi::DevicePath*>(bytes.data());
    const auto length = efi::path_length(path, size);
    if (!length)
        return;
    if (*length > size - sizeof(efi::DevicePath))
        std::abort();
    char16_t name[64];
    (void)efi::file_name_of(path, name);
    const auto needed = efi::path_to_text(path, {});
    std::vector<char16_t> text(needed);
    if (efi::path_to_text(path, text) != needed || efi::head_length(path, path) != length)
        std::abort();
}

void use_names(const std::uint8_t* data, std::size_t size) {
    std::vector<char16_t> name(size / 2 + 1);
    std::memcpy(name.data(), data, size / 2 * 2);
    char path[max_path];
    const auto resolved = resolve_path("/EFI/BOOT", name.data(), path);
    if (!resolved)
        return;
    if (resolved->size() >= max_path || (!resolved->empty() && resolved->front() != '/'))
        std::abort();
    char16_t back[max_path];
    if (to_utf16(*resolved, back) >= max_path)
        std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0 || size > efi::max_path_bytes)
        return 0;
    use_path(data, size);
    use_names(data, size);
    KeyDecoder decoder;
    for (std::size_t i = 0; i < size; ++i)
        (void)decoder.feed(data[i]);
    (void)decoder.idle();
    return 0;
}

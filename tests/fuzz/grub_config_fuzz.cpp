// grub.cfg, run to its menu. Input: the configuration, and behind a NUL what any
// other file on the disk says.
#include <cstdint>
#include <vector>

#include "tests/fuzz/boot_file_system.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace masu;
    const auto texts = fuzz::two_texts(data, size);
    fuzz::BootFileSystem fs(texts[0], texts[1]);
    const firmware::BootDevice devices[] = {{.fs = &fs, .disk = 0, .partition = 1, .gpt = true},
                                            {.fs = &fs, .disk = 1}};
    static std::vector<std::byte> memory(4 << 20);
    firmware::Arena arena(memory);
    const auto menu = firmware::read_grub_config(devices, {0, "/boot/grub/grub.cfg"}, arena);
    if (menu)
        fuzz::check_menu(*menu);
    return 0;
}

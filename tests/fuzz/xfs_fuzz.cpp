// A disk that may hold a file system of kind xfs: mounted, listed, read. Input: see disk_image.hpp.
#include <cstdint>
#include <vector>

#include "firmware/fs/file_system.hpp"
#include "tests/fuzz/disk_image.hpp"
#include "tests/fuzz/walk_file_system.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace masu;
    fuzz::Input input(data, size);
    fuzz::DiskImage disk(input);
    static std::vector<std::byte> memory(1 << 20);
    firmware::Arena arena(memory);
    const auto mounted = firmware::mount_xfs(disk, arena);
    if (mounted)
        fuzz::Walk(**mounted).everything();
    return 0;
}

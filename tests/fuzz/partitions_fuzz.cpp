// A disk that may hold a partition table. Input: options (8 bits), then see disk_image.hpp.
// Option 1: the primary GPT's checksums are made right; 2: the backup's; 4: the MBR's signature and
// a protective entry are there.
#include <cstdint>

#include "firmware/bytes.hpp"
#include "firmware/crc32.hpp"
#include "firmware/fs/partitions.hpp"
#include "tests/fuzz/disk_image.hpp"

namespace {

using namespace masu;

void seal(fuzz::DiskImage& disk, std::size_t header) {
    auto& bytes = disk.bytes();
    const std::span<const std::byte> view(bytes);
    if (header + 512 > bytes.size())
        return;
    const auto lba = firmware::load_le<std::uint64_t>(view, header + 72);
    const std::uint64_t size = std::uint64_t{firmware::load_le<std::uint32_t>(view, header + 80)} *
                               firmware::load_le<std::uint32_t>(view, header + 84);
    if (lba >= bytes.size() / 512 || size > bytes.size() - lba * 512)
        return;
    const auto put = [&](std::size_t at, std::uint32_t value) {
        std::memcpy(bytes.data() + at, &value, sizeof value);
    };
    put(header + 88, firmware::crc32(view.subspan(lba * 512, size)));
    put(header + 16, 0);
    const auto header_size = firmware::load_le<std::uint32_t>(view, header + 12);
    if (header_size <= 512)
        put(header + 16, firmware::crc32(view.subspan(header, header_size)));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    const auto options = input.take<std::uint8_t>();
    fuzz::DiskImage disk(input);
    if ((options & 4) != 0) {
        disk.bytes()[450] = std::byte{0xee};
        disk.bytes()[510] = std::byte{0x55};
        disk.bytes()[511] = std::byte{0xaa};
    }
    if ((options & 1) != 0)
        seal(disk, 512);
    if ((options & 2) != 0)
        seal(disk, disk.bytes().size() - 512);
    std::vector<std::byte> memory(64 << 10);
    firmware::Arena arena(memory);
    const auto table = firmware::read_partitions(disk, arena);
    if (!table)
        return 0;
    // What is not rejected lies on the disk, and apart from the others.
    for (const auto& a : table->partitions) {
        fuzz::require(a.name.back() == '\0');
        if (a.rejected != nullptr)
            continue;
        fuzz::require(a.block_count != 0 && contains(disk, a.first_lba, a.block_count));
        for (const auto& b : table->partitions)
            fuzz::require(&a == &b || b.rejected != nullptr ||
                          a.first_lba + a.block_count <= b.first_lba ||
                          b.first_lba + b.block_count <= a.first_lba);
    }
    return 0;
}

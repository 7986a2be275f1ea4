// A disk that may hold a partition table. Input: options (8 bits), then see disk_image.hpp.
// Option 1: the primary GPT's checksums are made right; 2: the backup's; 4: the MBR's signature and
// a protective entry are there.
#include <cstdint>
#include <cstring>
#include <vector>

#include "firmware/bytes.hpp"
#include "firmware/crc32.hpp"
#include "firmware/fs/partitions.hpp"
#include "tests/fuzz/disk_image.hpp"

namespace {

using namespace masu;

// Makes the checksums of the GPT header at `header` right, of entries up to 64 KiB.
void seal(fuzz::DiskImage& disk, std::uint64_t header, std::vector<std::byte>& sealed) {
    sealed.assign(512, std::byte{0});
    disk.load(header, sealed);
    const auto get = [&]<class T>(std::size_t at, T) { return firmware::load_le<T>(sealed, at); };
    const auto lba = get(72, std::uint64_t{});
    const std::uint64_t size = std::uint64_t{get(80, std::uint32_t{})} * get(84, std::uint32_t{});
    const auto header_size = get(12, std::uint32_t{});
    if (lba >= disk.block_count() || size > 65536 || header_size > sealed.size())
        return;
    std::vector<std::byte> entries(size);
    disk.load(lba * 512, entries);
    const auto put = [&](std::size_t at, std::uint32_t value) {
        std::memcpy(sealed.data() + at, &value, sizeof value);
    };
    put(88, firmware::crc32(entries));
    put(16, 0);
    put(16, firmware::crc32(std::span(sealed).first(header_size)));
    disk.store(header, sealed);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    const auto options = input.take<std::uint8_t>();
    fuzz::DiskImage disk(input);
    constexpr std::byte protective[]{std::byte{0xee}};
    constexpr std::byte signature[]{std::byte{0x55}, std::byte{0xaa}};
    std::vector<std::byte> primary;
    std::vector<std::byte> backup;
    if ((options & 4) != 0) {
        disk.store(450, protective);
        disk.store(510, signature);
    }
    if ((options & 1) != 0)
        seal(disk, 512, primary);
    if ((options & 2) != 0)
        seal(disk, (disk.block_count() - 1) * 512, backup);
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

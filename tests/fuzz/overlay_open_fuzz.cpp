// An overlay file of any content.
//
// Input: a byte of options, the size of the file in sectors (16 bits), then the header's fields in
// the order of OverlayHeader up to the base's path, then bytes of the bitmap, then operations.
// Option 1: the checksum is made right; 2: so are the fields that place things; 4: raw header.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include <xxhash.h>

#include "base/bytes.hpp"
#include "devices/block/overlay_disk.hpp"
#include "tests/fuzz/checking_disk.hpp"

namespace {

using namespace masu;
using namespace masu::block;

constexpr BaseIdentity identity{5 * 4096 + 512, 7, 9};

OverlayHeader take_header(fuzz::Input& input, unsigned options) {
    auto header = make_overlay_header(9 * 4096 + 512, identity, "/base");
    const auto bytes = input.take_bytes(72);
    if ((options & 4) != 0 && !bytes.empty())
        std::memcpy(&header, bytes.data(), bytes.size());
    if ((options & 2) != 0)
        header = make_overlay_header(
            std::max<std::uint64_t>(identity.size, header.virtual_size % (1 * MiB) / 512 * 512),
            identity, "/base");
    if ((options & 1) != 0)
        header.checksum = XXH64(&header, offsetof(OverlayHeader, checksum), 0);
    return header;
}

void operate(Disk& disk, fuzz::Input& input) {
    std::vector<std::byte> data(64 * KiB);
    std::vector<Completion> done;
    while (!input.done()) {
        const auto operation = static_cast<Op>(input.take<std::uint8_t>() % 5);
        const std::uint64_t offset =
            input.take<std::uint16_t>() % (disk.size() / sector_size) * sector_size;
        const std::uint64_t size = std::min<std::uint64_t>(
            (1 + input.take<std::uint8_t>() % 100U) * sector_size, disk.size() - offset);
        const iovec buffer{data.data(), size};
        const bool transfers = operation == Op::Read || operation == Op::Write;
        done.clear();
        disk.submit({.op = operation,
                     .offset = offset,
                     .size = size,
                     .buffers = std::span<const iovec>(&buffer, transfers ? 1 : 0)});
        disk.kick();
        disk.drain(done);
        fuzz::require(done.size() == 1 && done[0].error == 0);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    const auto options = input.take<std::uint8_t>();
    std::vector<std::byte> base(identity.size);
    std::vector<std::byte> store((1 + input.take<std::uint16_t>() % 4096U) * sector_size);
    const auto header = take_header(input, options);
    std::memcpy(store.data(), &header, std::min(store.size(), sizeof header));
    const auto bitmap = input.take_bytes(32);
    if (store.size() >= 2 * overlay_block)
        std::ranges::copy(bitmap, store.begin() + overlay_block);
    if (store.size() < sizeof header)
        return 0;  // no header is read from it
    auto opened =
        OverlayDisk::open(std::make_unique<fuzz::CheckingDisk>(base, true), identity, header,
                          std::make_unique<fuzz::CheckingDisk>(store, false), "overlay");
    if (!opened)
        return 0;
    fuzz::require((*opened)->size() >= identity.size);
    operate(**opened, input);
    return 0;
}

// What `masu image import` reads of foreign disks: formats, partition tables, packed streams.
//
// Input: a byte of options, then the file. 0: judged as a disk, of a size that a second byte
// stretches; 1, 2, 3: unpacked as gzip, xz, zstd.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/bytes.hpp"
#include "tests/fuzz/input.hpp"
#include "tools/masu/boot_method.hpp"
#include "tools/masu/decompress.hpp"
#include "tools/masu/image_format.hpp"

namespace {

using namespace masu;
using namespace masu::cli;

constexpr std::uint64_t unpacked_limit = 4 * MiB;

void judge(std::span<const std::byte> file, std::uint64_t size) {
    const ReadAt read = [&](std::uint64_t offset, std::span<std::byte> to) -> Result<std::size_t> {
        if (offset >= size)
            return std::size_t{0};
        const auto there = std::min<std::uint64_t>(to.size(), size - offset);
        std::ranges::fill(to.first(there), std::byte{0});
        if (offset < file.size()) {
            const auto part =
                file.subspan(offset).first(std::min<std::uint64_t>(there, file.size() - offset));
            std::ranges::copy(part, to.begin());
        }
        return there;
    };
    fuzz::require(detect_compression(read).has_value());
    [[maybe_unused]] const auto format = detect_format(read, size);
    fuzz::require(detect_boot_method(read, size).has_value());
}

void unpack(Compression compression, std::span<const std::byte> file) {
    bool given = false;
    auto unpacker = make_decompressor(compression, [&]() -> Result<std::span<const std::byte>> {
        return std::exchange(given, true) ? std::span<const std::byte>() : file;
    });
    fuzz::require(unpacker.has_value());
    std::array<std::byte, 4096> piece;
    for (std::uint64_t total = 0; total < unpacked_limit;) {
        const auto got = (*unpacker)->read(piece);
        if (!got || *got == 0)
            break;
        fuzz::require(*got <= piece.size());
        total += *got;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input(data, size);
    const auto options = input.take<std::uint8_t>() % 4U;
    const auto stretch = options == 0 ? input.take<std::uint8_t>() : 0U;
    const auto file = input.take_bytes(size);
    if (options == 0)
        judge(file, file.size() + stretch * MiB / 4);
    else
        unpack(static_cast<Compression>(options), file);
    return 0;
}

// Reading a file through its map of extents; common to all file systems.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "firmware/fs/volume.hpp"

namespace masu::firmware {

// Where a run of a file's bytes lies: `length` of them, never 0, from the offset that was asked
// for.
struct Extent {
    std::uint64_t disk_offset = 0;  // bytes from the start of the volume
    std::uint64_t length = 0;
    bool hole = false;  // reads as zeros; disk_offset means nothing
};

// Fills `to` with the file's bytes from `offset` on. `map(offset, wanted)` yields a Result<Extent>
// for an offset; its length may be more or less than wanted.
template <class Map>
[[nodiscard]] Result<> read_mapped(Volume& volume, std::uint64_t offset, std::span<std::byte> to,
                                   Map map) noexcept {
    std::array<Piece, 16> pieces{};
    std::size_t count = 0;
    const auto flush = [&] {
        const std::size_t full = count;
        count = 0;
        return volume.read_many(std::span(pieces).first(full));
    };
    while (!to.empty()) {
        const Result<Extent> extent = map(offset, to.size());
        if (!extent)
            return std::unexpected(extent.error());
        if (extent->length == 0)
            return fail(ErrorCode::Corrupt, "a file's extent is empty", offset);
        const auto size =
            static_cast<std::size_t>(std::min<std::uint64_t>(extent->length, to.size()));
        const auto part = to.first(size);
        offset += size;
        to = to.subspan(size);
        if (extent->hole) {
            std::memset(part.data(), 0, size);
            continue;
        }
        // Neighbours on disk become one request; in memory they are neighbours unless a hole was
        // between them.
        if (count != 0) {
            auto& last = pieces[count - 1];
            if (last.offset + last.to.size() == extent->disk_offset &&
                last.to.data() + last.to.size() == part.data()) {
                last.to = {last.to.data(), last.to.size() + size};
                continue;
            }
        }
        if (count == pieces.size())
            if (auto done = flush(); !done)
                return done;
        pieces[count++] = {extent->disk_offset, part};
    }
    return flush();
}

}  // namespace masu::firmware

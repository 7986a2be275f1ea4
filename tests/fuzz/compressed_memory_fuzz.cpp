// A compressed memory file from anyone: as it comes, and frames of any content under an index that
// is right.
#include <xxhash.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tools/masu/compressed_memory.hpp"

using namespace masu;
using namespace masu::cli;

namespace {

void unpack(ChunkReader& reader, const ChunkEntry& entry, std::span<const std::byte> frame,
            std::size_t size) {
    std::vector<std::byte> room(size);
    [[maybe_unused]] const auto done = reader.unpack(entry, frame, room);
}

void check_file(std::span<const std::byte> file, ChunkReader& reader) {
    const auto index = decode_chunk_index(file, file.size());
    if (!index)
        return;
    for (std::size_t i = 0; i < index->chunks.size(); ++i) {
        const auto& entry = index->chunks[i];
        if (entry.offset > file.size() || entry.size > file.size() - entry.offset)
            __builtin_trap();
        if (entry.size != 0)
            unpack(reader, entry, file.subspan(entry.offset, entry.size), index->size_of(i));
    }
    // It is written the same again.
    const auto end = encode(*index);
    if (!decode_chunk_index(end, file.size()))
        __builtin_trap();
}

}  // namespace

// The input: a file; and again, a frame.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto input = std::as_bytes(std::span(data, size));
    ChunkReader reader;
    check_file(input, reader);
    const ChunkEntry entry{.offset = compressed_memory_magic.size(),
                           .checksum = ::XXH3_64bits(data, size),
                           .size = static_cast<std::uint32_t>(size)};
    unpack(reader, entry, input, min_chunk_size);
    return 0;
}

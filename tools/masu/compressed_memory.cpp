#include "tools/masu/compressed_memory.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/bytes.hpp"
#include "base/file_bytes.hpp"
#include "vmm/page_set.hpp"

namespace masu::cli {

namespace {

// As much as a machine can have (check(MachineConfig)), and more.
constexpr std::uint64_t max_memory = 64 * 1024 * GiB;

std::uint64_t checksum_of(std::span<const std::byte> bytes) {
    return ::XXH3_64bits(bytes.data(), bytes.size());
}

std::uint64_t checksum_of(CompressedTrailer trailer, std::span<const ChunkEntry> chunks) {
    trailer.checksum = 0;
    PlainWriter writer;
    writer.put_raw(std::as_bytes(chunks));
    writer.put(trailer);
    return checksum_of(std::move(writer).take());
}

std::uint64_t chunk_count(std::uint64_t memory_bytes, std::uint32_t chunk_size) {
    return (memory_bytes + chunk_size - 1) / chunk_size;
}

Result<> check_sizes(const CompressedTrailer& trailer) {
    if (trailer.chunk_size < min_chunk_size || trailer.chunk_size > max_chunk_size ||
        !std::has_single_bit(trailer.chunk_size))
        return fail("its chunks have {} bytes", trailer.chunk_size);
    if (trailer.memory_bytes == 0 || trailer.memory_bytes > max_memory ||
        trailer.memory_bytes % guest_page != 0 ||
        trailer.chunk_count != chunk_count(trailer.memory_bytes, trailer.chunk_size))
        return fail("it has {} chunks for {} bytes of memory", trailer.chunk_count,
                    trailer.memory_bytes);
    return {};
}

Result<CompressedTrailer> read_trailer(std::span<const std::byte> end, std::uint64_t file_size) {
    CompressedTrailer trailer;
    if (end.size() < sizeof trailer || file_size < sizeof trailer + compressed_memory_magic.size())
        return fail("it is cut off");
    std::memcpy(&trailer, end.data() + end.size() - sizeof trailer, sizeof trailer);
    if (trailer.magic != compressed_memory_magic)
        return fail("it does not end with '{}': it is cut off, or something else",
                    std::string_view(compressed_memory_magic.data(), trailer.magic.size()));
    if (trailer.version != compressed_memory_version)
        return fail("it has format version {}, and this version of Masu reads {}", trailer.version,
                    compressed_memory_version);
    TRY(check_sizes(trailer));
    return trailer;
}

// Frame after frame, from the magic to the index.
Result<> check_chunks(const ChunkIndex& index, std::uint64_t frames_end) {
    std::uint64_t place = compressed_memory_magic.size();
    for (std::size_t i = 0; i < index.chunks.size(); ++i) {
        const auto& chunk = index.chunks[i];
        if (chunk.offset != place || chunk.size > frames_end - place ||
            chunk.size > ::ZSTD_compressBound(index.size_of(i)) || chunk.reserved != 0)
            return fail("chunk {} lies where it cannot be", i);
        place += chunk.size;
    }
    if (place != frames_end)
        return fail("{} bytes lie between its chunks and its index", frames_end - place);
    return {};
}

Result<> read_exactly(int fd, std::span<std::byte> to, std::uint64_t offset) {
    const auto got = read_at(fd, to, offset);
    if (!got)
        return fail_errno(got.error().os_errno, "it cannot be read");
    if (*got < to.size())
        return fail("it ends too early");
    return {};
}

}  // namespace

std::uint32_t ChunkIndex::size_of(std::size_t chunk) const noexcept {
    return static_cast<std::uint32_t>(
        std::min<std::uint64_t>(chunk_size, memory_bytes - chunk * chunk_size));
}

Result<std::uint64_t> index_bytes(std::span<const std::byte> trailer, std::uint64_t file_size) {
    const auto read = TRY(read_trailer(trailer, file_size));
    const auto size = read.chunk_count * sizeof(ChunkEntry) + sizeof(CompressedTrailer);
    if (size > file_size - compressed_memory_magic.size())
        return fail("its index of {} chunks does not fit its {} bytes", read.chunk_count,
                    file_size);
    return size;
}

Result<ChunkIndex> decode_chunk_index(std::span<const std::byte> end, std::uint64_t file_size) {
    const auto size = TRY(index_bytes(end, file_size));
    if (size > end.size() || end.size() > file_size)
        return fail("it is cut off");
    const auto trailer = TRY(read_trailer(end, file_size));
    ChunkIndex index{.memory_bytes = trailer.memory_bytes,
                     .chunk_size = trailer.chunk_size,
                     .belongs_to = trailer.belongs_to,
                     .chunks = std::vector<ChunkEntry>(trailer.chunk_count)};
    std::memcpy(index.chunks.data(), end.data() + end.size() - size,
                index.chunks.size() * sizeof(ChunkEntry));
    if (trailer.checksum != checksum_of(trailer, index.chunks))
        return fail("the checksum of its index is wrong");
    TRY(check_chunks(index, file_size - size));
    return index;
}

std::vector<std::byte> encode(const ChunkIndex& index) {
    CompressedTrailer trailer{.memory_bytes = index.memory_bytes,
                              .belongs_to = index.belongs_to,
                              .chunk_size = index.chunk_size,
                              .chunk_count = static_cast<std::uint32_t>(index.chunks.size())};
    trailer.checksum = checksum_of(trailer, index.chunks);
    PlainWriter writer;
    writer.put_raw(std::as_bytes(std::span(index.chunks)));
    writer.put(trailer);
    return std::move(writer).take();
}

struct DecompressionContext {
    DecompressionContext() : zstd(::ZSTD_createDCtx()) {}
    ~DecompressionContext() { ::ZSTD_freeDCtx(zstd); }
    DecompressionContext(const DecompressionContext&) = delete;
    DecompressionContext& operator=(const DecompressionContext&) = delete;
    ZSTD_DCtx* zstd;
};

ChunkReader::ChunkReader() : context_(std::make_unique<DecompressionContext>()) {}
ChunkReader::ChunkReader(ChunkReader&&) noexcept = default;
ChunkReader& ChunkReader::operator=(ChunkReader&&) noexcept = default;
ChunkReader::~ChunkReader() = default;

Result<> ChunkReader::unpack(const ChunkEntry& entry, std::span<const std::byte> frame,
                             std::span<std::byte> to) {
    if (context_->zstd == nullptr)
        return fail("zstd has no memory left");
    if (checksum_of(frame) != entry.checksum)
        return fail("the checksum of the piece at byte {} is wrong", entry.offset);
    const auto size =
        ::ZSTD_decompressDCtx(context_->zstd, to.data(), to.size(), frame.data(), frame.size());
    if (::ZSTD_isError(size) != 0)
        return fail("the piece at byte {} is no zstd frame of its size: {}", entry.offset,
                    ::ZSTD_getErrorName(size));
    if (size != to.size())
        return fail("the piece at byte {} holds {} bytes and should hold {}", entry.offset, size,
                    to.size());
    return {};
}

Result<> ChunkReader::read(int fd, const ChunkIndex& index, std::size_t chunk,
                           std::span<std::byte> to) {
    const auto& entry = index.chunks[chunk];
    if (entry.size == 0) {
        std::ranges::fill(to, std::byte{0});
        return {};
    }
    frame_.resize(entry.size);
    TRY(read_exactly(fd, frame_, entry.offset));
    return unpack(entry, frame_, to);
}

Result<CompressedMemory> open_compressed_memory(const std::string& path) {
    CompressedMemory memory{
        .file = Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), .path = path, .index = {}};
    const int fd = memory.file.get();
    struct stat status{};
    if (!memory.file || ::fstat(fd, &status) < 0)
        return fail_errno(errno, "cannot open the compressed memory file {}", path);
    const auto size = static_cast<std::uint64_t>(status.st_size);
    auto index = [&]() -> Result<ChunkIndex> {
        if (!S_ISREG(status.st_mode) || size < sizeof(CompressedTrailer))
            return fail("it is cut off, or something else");
        std::array<char, 8> magic{};
        TRY(read_exactly(fd, std::as_writable_bytes(std::span(magic)), 0));
        if (magic != compressed_memory_magic)
            return fail("it does not start with '{}'",
                        std::string_view(compressed_memory_magic.data(), magic.size()));
        std::vector<std::byte> end(sizeof(CompressedTrailer));
        TRY(read_exactly(fd, end, size - end.size()));
        end.resize(TRY(index_bytes(end, size)));
        TRY(read_exactly(fd, end, size - end.size()));
        return decode_chunk_index(end, size);
    }();
    if (!index)
        return fail("the compressed memory file {} is damaged: {}", path, index.error().message);
    memory.index = *std::move(index);
    return memory;
}

}  // namespace masu::cli

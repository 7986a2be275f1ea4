// Whole memory files compressed and unpacked, with one thread a CPU.
#include <sys/stat.h>
#include <xxhash.h>
#include <zstd.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>

#include "base/bytes.hpp"
#include "base/file_bytes.hpp"
#include "tools/masu/compressed_memory.hpp"
#include "vmm/page_set.hpp"
#include "vmm/snapshot/memory_file.hpp"

namespace masu::cli {

namespace {

constexpr int compression_level = 3;  // zstd's own default
constexpr unsigned max_threads = 16;

Result<> read_exactly(int fd, std::span<std::byte> to, std::uint64_t offset) {
    const auto got = read_at(fd, to, offset);
    if (!got || *got < to.size())
        return fail_errno(got ? EIO : got.error().os_errno, "cannot read the memory file");
    return {};
}

Result<> write_exactly(int fd, std::span<const std::byte> bytes, std::uint64_t offset,
                       const std::string& path) {
    if (const auto written = write_at(fd, bytes, offset); !written)
        return fail_errno(written.error().os_errno, "cannot write {}", path);
    return {};
}

// Hands out the numbers of chunks to threads, and lets each finish in the order of the numbers. The
// first error ends all.
class Sequence {
  public:
    explicit Sequence(std::size_t count) : count_(count) {}

    std::optional<std::size_t> next() {
        const std::lock_guard lock(mutex_);
        if (error_ || next_ == count_)
            return std::nullopt;
        return next_++;
    }
    // Waits until all before `number` have finished, and runs finish() alone.
    template <class Finish>
    void in_turn(std::size_t number, Finish finish) {
        std::unique_lock lock(mutex_);
        turned_.wait(lock, [&] { return error_ || finished_ == number; });
        if (error_)
            return;
        if (auto done = finish(); !done)
            error_ = std::move(done.error());
        ++finished_;
        turned_.notify_all();
    }
    void give_up(Error error) {
        const std::lock_guard lock(mutex_);
        if (!error_)
            error_ = std::move(error);
        turned_.notify_all();
    }
    [[nodiscard]] Result<> outcome() {
        const std::lock_guard lock(mutex_);
        if (error_)
            return std::unexpected(*error_);
        return {};
    }

  private:
    std::size_t count_;
    std::mutex mutex_;
    std::condition_variable turned_;
    std::size_t next_ = 0;
    std::size_t finished_ = 0;
    std::optional<Error> error_;
};

// work(sequence) in as many threads as make sense.
template <class Work>
Result<> run_threads(std::size_t chunks, Work work) {
    Sequence sequence(chunks);
    const auto threads = std::min<std::size_t>(
        std::clamp(std::thread::hardware_concurrency(), 1U, max_threads), chunks);
    {
        std::vector<std::jthread> workers;
        for (std::size_t i = 0; i < threads; ++i)
            workers.emplace_back([&] { work(sequence); });
    }
    return sequence.outcome();
}

struct Compressor {
    Compressor() : zstd(::ZSTD_createCCtx()) {}
    ~Compressor() { ::ZSTD_freeCCtx(zstd); }
    Compressor(const Compressor&) = delete;
    Compressor& operator=(const Compressor&) = delete;

    // The number of bytes of `to` that are used.
    Result<std::size_t> compress(std::span<const std::byte> from, std::span<std::byte> to) const {
        if (zstd == nullptr)
            return fail("zstd has no memory left");
        const auto size = ::ZSTD_compressCCtx(zstd, to.data(), to.size(), from.data(), from.size(),
                                              compression_level);
        if (::ZSTD_isError(size) != 0)
            return fail("zstd cannot compress memory: {}", ::ZSTD_getErrorName(size));
        return size;
    }

    ZSTD_CCtx* zstd;
};

// What the threads of one compression share.
struct Compression {
    int from;
    int to;
    const std::string& path;
    const MemoryProgress& progress;
    ChunkIndex index;
    std::uint64_t place = compressed_memory_magic.size();

    void work(Sequence& sequence) {
        const Compressor compressor;
        std::vector<std::byte> plain(index.chunk_size);
        std::vector<std::byte> packed(::ZSTD_compressBound(index.chunk_size));
        while (const auto chunk = sequence.next()) {
            const auto bytes = std::span(plain).first(index.size_of(*chunk));
            auto size = pack(*chunk, bytes, packed, compressor);
            if (!size) {
                sequence.give_up(std::move(size.error()));
                return;
            }
            sequence.in_turn(*chunk,
                             [&] { return append(*chunk, std::span(packed).first(*size)); });
        }
    }

  private:
    // 0 for a chunk of zeros.
    Result<std::size_t> pack(std::size_t chunk, std::span<std::byte> plain,
                             std::span<std::byte> packed, const Compressor& compressor) const {
        TRY(read_exactly(from, plain, chunk * index.chunk_size));
        if (is_zero(plain))
            return 0UL;
        return compressor.compress(plain, packed);
    }
    Result<> append(std::size_t chunk, std::span<const std::byte> frame) {
        index.chunks[chunk] = {
            .offset = place,
            .checksum = frame.empty() ? 0 : ::XXH3_64bits(frame.data(), frame.size()),
            .size = static_cast<std::uint32_t>(frame.size())};
        TRY(write_exactly(to, frame, place, path));
        place += frame.size();
        return progress(chunk * index.chunk_size + index.size_of(chunk));
    }
};

}  // namespace

Result<std::uint64_t> compress_memory(int from, int to, const std::string& to_path,
                                      const snapshot::SnapshotId& belongs_to,
                                      const MemoryProgress& progress, std::uint32_t chunk_size) {
    struct stat status{};
    if (::fstat(from, &status) < 0)
        return fail_errno(errno, "cannot look at the memory file");
    const auto memory_bytes = static_cast<std::uint64_t>(status.st_size);
    if (memory_bytes == 0 || memory_bytes % guest_page != 0)
        return fail("the memory file has {} bytes, which are no whole pages", memory_bytes);
    Compression compression{.from = from,
                            .to = to,
                            .path = to_path,
                            .progress = progress,
                            .index = {.memory_bytes = memory_bytes,
                                      .chunk_size = chunk_size,
                                      .belongs_to = belongs_to,
                                      .chunks = {}}};
    compression.index.chunks.resize((memory_bytes + chunk_size - 1) / chunk_size);
    TRY(write_exactly(to, std::as_bytes(std::span(compressed_memory_magic)), 0, to_path));
    TRY(run_threads(compression.index.chunks.size(),
                    [&](Sequence& sequence) { compression.work(sequence); }));
    const auto end = encode(compression.index);
    TRY(write_exactly(to, end, compression.place, to_path));
    return compression.place + end.size();
}

Result<std::uint64_t> decompress_memory(const CompressedMemory& from, int to,
                                        const std::string& to_path,
                                        const MemoryProgress& progress) {
    const auto& index = from.index;
    TRY(snapshot::size_memory(to, index.memory_bytes, to_path));
    std::uint64_t written = 0;
    const auto unpack = [&](ChunkReader& reader, std::size_t chunk,
                            std::span<std::byte> bytes) -> Result<std::uint64_t> {
        if (index.chunks[chunk].size == 0)
            return std::uint64_t{0};
        if (auto read = reader.read(from.file.get(), index, chunk, bytes); !read)
            return fail("the compressed memory file {} is damaged: {}", from.path,
                        read.error().message);
        return snapshot::write_sparse(bytes, to, chunk * index.chunk_size, snapshot::Zeros::Hole,
                                      to_path);
    };
    TRY(run_threads(index.chunks.size(), [&](Sequence& sequence) {
        ChunkReader reader;
        std::vector<std::byte> buffer(index.chunk_size);
        while (const auto chunk = sequence.next()) {
            auto done = unpack(reader, *chunk, std::span(buffer).first(index.size_of(*chunk)));
            if (!done) {
                sequence.give_up(std::move(done.error()));
                return;
            }
            sequence.in_turn(*chunk, [&] {
                written += *done;
                return progress(*chunk * index.chunk_size + index.size_of(*chunk));
            });
        }
    }));
    return written;
}

}  // namespace masu::cli

// Compressed memory files: what goes in comes out, and nothing damaged is taken for good.
#include "tools/masu/compressed_memory.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"

using namespace masu;
using namespace masu::cli;
namespace fs = std::filesystem;

namespace {

using Bytes = std::vector<std::byte>;

struct Folder {
    std::string path = "/tmp/masu-compressed-test-XXXXXX";
    Folder() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
    ~Folder() { fs::remove_all(path); }
    std::string operator/(const std::string& name) const { return path + "/" + name; }
};

constexpr snapshot::SnapshotId some_id{std::byte{7}, std::byte{9}};
Result<> no_progress(std::uint64_t /*done*/) {
    return {};
}

Fd create(const std::string& path) {
    return Fd(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
}

void write_file(const std::string& path, const Bytes& bytes) {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
}

Bytes read_bytes(const std::string& path) {
    const auto text = *read_file(path, 64 * MiB);
    const auto bytes = std::as_bytes(std::span(text));
    return {bytes.begin(), bytes.end()};
}

// 22.5 chunks: text-like ones, ones of zeros, ones that do not compress.
Bytes some_memory(std::uint32_t seed) {
    std::mt19937 random(seed);
    Bytes memory(22 * default_chunk_size + default_chunk_size / 2);
    for (std::size_t chunk = 0; chunk * default_chunk_size < memory.size(); ++chunk)
        for (std::size_t i = chunk * default_chunk_size;
             i < std::min<std::size_t>(memory.size(), (chunk + 1) * default_chunk_size); ++i)
            if (chunk % 3 != 1)
                memory[i] = static_cast<std::byte>(chunk % 3 == 0 ? random() % 4 : random());
    return memory;
}

// The compressed file of that memory.
std::string compressed(const Folder& folder, const Bytes& memory) {
    write_file(folder / "memory", memory);
    const Fd from(::open((folder / "memory").c_str(), O_RDONLY | O_CLOEXEC));
    const auto path = folder / "memory.zst";
    const auto to = create(path);
    const auto size = compress_memory(from.get(), to.get(), path, some_id, no_progress);
    REQUIRE_MESSAGE(size, size.error().message);
    CHECK(*size == fs::file_size(path));
    return path;
}

std::string refusal(const std::string& path, const Folder& folder) {
    const auto memory = open_compressed_memory(path);
    if (!memory)
        return memory.error().message;
    const auto to = create(folder / "again");
    const auto done = decompress_memory(*memory, to.get(), folder / "again", no_progress);
    return done ? "" : done.error().message;
}

}  // namespace

TEST_CASE("memory that was compressed comes back as it was, zeros as holes") {
    const Folder folder;
    for (const std::uint32_t seed : {1U, 2U, 3U}) {
        const auto memory = some_memory(seed);
        const auto path = compressed(folder, memory);
        CHECK(fs::file_size(path) < memory.size());
        const auto open = open_compressed_memory(path);
        REQUIRE(open);
        CHECK(open->index.belongs_to == some_id);
        CHECK(open->index.memory_bytes == memory.size());
        CHECK(open->index.chunks.size() == 23);
        CHECK(open->index.chunks[1].size == 0);
        CHECK(open->index.size_of(22) == default_chunk_size / 2);
        const auto to = create(folder / "again");
        const auto written = decompress_memory(*open, to.get(), folder / "again", no_progress);
        REQUIRE(written);
        CHECK(*written <= memory.size() / 3 * 2 + default_chunk_size);
        CHECK(read_bytes(folder / "again") == memory);
        struct stat status{};
        REQUIRE(::fstat(to.get(), &status) == 0);
        CHECK(status.st_blocks * 512 < static_cast<long>(memory.size()));
    }
}

TEST_CASE("a chunk is read by itself") {
    const Folder folder;
    const auto memory = some_memory(4);
    const auto open = open_compressed_memory(compressed(folder, memory));
    REQUIRE(open);
    ChunkReader reader;
    for (const std::size_t chunk : {22UL, 0UL, 1UL, 13UL}) {
        Bytes bytes(open->index.size_of(chunk), std::byte{0xff});
        REQUIRE(reader.read(open->file.get(), open->index, chunk, bytes));
        CHECK(std::ranges::equal(
            bytes, std::span(memory).subspan(chunk * default_chunk_size, bytes.size())));
    }
}

TEST_CASE("a file that is cut off is refused, wherever it ends") {
    const Folder folder;
    const auto path = compressed(folder, some_memory(5));
    const auto whole = read_bytes(path);
    std::mt19937 random(6);
    std::vector<std::size_t> lengths{0,
                                     1,
                                     8,
                                     55,
                                     56,
                                     63,
                                     64,
                                     whole.size() - 1,
                                     whole.size() - 24,
                                     whole.size() - 56,
                                     whole.size() - 57};
    for (int i = 0; i < 40; ++i)
        lengths.push_back(random() % whole.size());
    for (const auto length : lengths) {
        CAPTURE(length);
        write_file(path, {whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length)});
        CHECK(refusal(path, folder).contains("damaged"));
    }
    auto longer = whole;
    longer.insert(longer.end() - 56, std::byte{0});
    write_file(path, longer);
    CHECK(refusal(path, folder).contains("damaged"));
}

TEST_CASE("a file with any bit changed is refused") {
    const Folder folder;
    const auto path = compressed(folder, some_memory(7));
    const auto whole = read_bytes(path);
    std::mt19937 random(8);
    std::vector<std::size_t> places;
    for (std::size_t place = 0; place < 8; ++place)
        places.push_back(place);
    for (std::size_t place = whole.size() - 56; place < whole.size(); ++place)
        places.push_back(place);
    for (int i = 0; i < 60; ++i)
        places.push_back(random() % whole.size());
    for (const auto place : places) {
        CAPTURE(place);
        auto changed = whole;
        changed[place] ^= static_cast<std::byte>(1U << random() % 8);
        write_file(path, changed);
        CHECK(refusal(path, folder).contains("damaged"));
    }
}

TEST_CASE("an index that cannot be is refused, though its checksum is right") {
    const ChunkIndex good{.memory_bytes = 3 * min_chunk_size,
                          .chunk_size = min_chunk_size,
                          .belongs_to = some_id,
                          .chunks = {{.offset = 8, .checksum = 1, .size = 100},
                                     {.offset = 108, .checksum = 0, .size = 0},
                                     {.offset = 108, .checksum = 2, .size = 50}}};
    const auto refused = [](const ChunkIndex& index, std::uint64_t frames = 150) {
        const auto end = encode(index);
        const auto read = decode_chunk_index(end, 8 + frames + end.size());
        return read ? std::string() : read.error().message;
    };
    CHECK(refused(good).empty());
    CHECK(refused(good, 151).contains("between its chunks and its index"));
    CHECK(refused(good, 149).contains("chunk 2 lies where it cannot be"));
    auto bad = good;
    bad.chunks[1].offset = 109;
    CHECK(refused(bad).contains("chunk 1 lies where it cannot be"));
    bad = good;
    bad.chunks[0].size = 0xffff'ffff;
    CHECK(refused(bad).contains("chunk 0 lies where it cannot be"));
    bad = good;
    bad.chunks[2].reserved = 1;
    CHECK(refused(bad).contains("chunk 2 lies where it cannot be"));
    bad = good;
    bad.chunk_size = 3 * min_chunk_size;
    CHECK(refused(bad).contains("its chunks have"));
    bad = good;
    bad.memory_bytes = 4 * min_chunk_size;
    CHECK(refused(bad).contains("it has 3 chunks for"));
    bad = good;
    bad.memory_bytes += 1;
    CHECK(refused(bad).contains("chunks for"));
}

TEST_CASE("a chunk that holds something else than its place wants is refused") {
    const Folder folder;
    const auto open = open_compressed_memory(compressed(folder, some_memory(9)));
    REQUIRE(open);
    ChunkReader reader;
    Bytes room(default_chunk_size);
    for (const auto size : {default_chunk_size / 2, default_chunk_size - 1}) {
        const auto read =
            reader.read(open->file.get(), open->index, 0, std::span(room).first(size));
        REQUIRE_FALSE(read);
        CHECK(read.error().message.contains("the piece at byte 8"));
    }
    Bytes more(default_chunk_size + 1);
    const auto read = reader.read(open->file.get(), open->index, 0, more);
    REQUIRE_FALSE(read);
    CHECK(read.error().message.contains("should hold 131073"));
    // Right checksum, wrong content.
    const Bytes noise(100, std::byte{0x55});
    const ChunkEntry entry{
        .offset = 8, .checksum = ::XXH3_64bits(noise.data(), noise.size()), .size = 100};
    const auto unpacked = reader.unpack(entry, noise, room);
    REQUIRE_FALSE(unpacked);
    CHECK(unpacked.error().message.contains("no zstd frame"));
}

TEST_CASE("progress rises to the end, and can put an end to it") {
    const Folder folder;
    const auto memory = some_memory(10);
    const auto open = open_compressed_memory(compressed(folder, memory));
    REQUIRE(open);
    std::uint64_t last = 0;
    bool rising = true;
    const auto to = create(folder / "again");
    REQUIRE(decompress_memory(*open, to.get(), "again", [&](std::uint64_t done) -> Result<> {
        rising = rising && done > last;
        last = done;
        return {};
    }));
    CHECK(rising);
    CHECK(last == memory.size());
    const Fd from(::open((folder / "memory").c_str(), O_RDONLY | O_CLOEXEC));
    const auto stopped =
        compress_memory(from.get(), to.get(), "again", some_id, [](std::uint64_t done) -> Result<> {
            if (done > 5 * default_chunk_size)
                return fail("enough");
            return {};
        });
    REQUIRE_FALSE(stopped);
    CHECK(stopped.error().message == "enough");
}

TEST_CASE("a file that is no memory is not compressed") {
    const Folder folder;
    for (const std::size_t size : {0UL, 5000UL}) {
        write_file(folder / "memory", Bytes(size));
        const Fd from(::open((folder / "memory").c_str(), O_RDONLY | O_CLOEXEC));
        const auto to = create(folder / "memory.zst");
        const auto done = compress_memory(from.get(), to.get(), "memory.zst", some_id, no_progress);
        REQUIRE_FALSE(done);
        CHECK(done.error().message.contains("no whole pages"));
    }
}

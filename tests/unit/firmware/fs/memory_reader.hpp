// A disk in memory, or the first part of one, for reading.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "firmware/arena.hpp"
#include "firmware/crc32.hpp"
#include "firmware/fs/block_reader.hpp"

namespace masu::firmware::test {

class MemoryReader final : public BlockReader {
  public:
    explicit MemoryReader(std::vector<std::byte> bytes, std::uint32_t block_size = 512)
        : bytes_(std::move(bytes)), block_size_(block_size) {}
    static MemoryReader of_file(const std::string& path, std::uint32_t block_size = 512) {
        std::ifstream file(path, std::ios::binary);
        const std::vector<char> text{std::istreambuf_iterator<char>(file), {}};
        std::vector<std::byte> bytes(text.size());
        std::memcpy(bytes.data(), text.data(), text.size());
        return MemoryReader(std::move(bytes), block_size);
    }

    [[nodiscard]] std::uint32_t block_size() const noexcept override { return block_size_; }
    [[nodiscard]] std::uint64_t block_count() const noexcept override {
        return bytes_.size() / block_size_;
    }
    [[nodiscard]] Result<> read(std::uint64_t lba, std::span<std::byte> to) noexcept override {
        ++requests;
        largest = std::max(largest, to.size());
        if (!contains(*this, lba, to.size() / block_size_) || to.size() % block_size_ != 0)
            return fail(ErrorCode::Io, "outside the test's disk", lba);
        if (lba == broken)
            return fail(ErrorCode::Io, "the test's broken block", lba);
        std::memcpy(to.data(), bytes_.data() + lba * block_size_, to.size());
        return {};
    }

    [[nodiscard]] std::vector<std::byte>& bytes() noexcept { return bytes_; }
    [[nodiscard]] const std::vector<std::byte>& bytes() const noexcept { return bytes_; }
    template <class T>
    void store(std::size_t offset, T value) {
        (void)bytes_.at(offset + sizeof value - 1);  // a mistake of the test's
        std::memcpy(bytes_.data() + offset, &value, sizeof value);
    }
    template <class T>
    [[nodiscard]] T load(std::size_t offset) const {
        T value;
        std::memcpy(&value, bytes_.data() + offset, sizeof value);
        return value;
    }

    std::size_t requests = 0;
    std::size_t largest = 0;  // bytes
    std::uint64_t broken = ~std::uint64_t{0};

  private:
    std::vector<std::byte> bytes_;
    std::uint32_t block_size_;
};

// Makes both checksums of a GPT of 128 entries right again.
inline void seal_gpt(MemoryReader& disk, std::size_t header = 512, std::size_t entries = 1024) {
    const std::span<const std::byte> bytes(disk.bytes());
    disk.store(header + 88, crc32(bytes.subspan(entries, 128 * 128)));
    disk.store<std::uint32_t>(header + 16, 0);
    disk.store(header + 16, crc32(bytes.subspan(header, 92)));
}

// An arena with memory of its own.
class TestArena {
  public:
    explicit TestArena(std::size_t size = 4 << 20) : memory_(size), arena_(memory_) {}
    operator Arena&() noexcept { return arena_; }
    Arena* operator->() noexcept { return &arena_; }

  private:
    std::vector<std::byte> memory_;
    Arena arena_;
};

}  // namespace masu::firmware::test

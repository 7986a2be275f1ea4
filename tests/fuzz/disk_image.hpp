// A disk made of a fuzzer's bytes: pieces over zeros.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "firmware/fs/block_reader.hpp"
#include "tests/fuzz/input.hpp"

namespace masu::fuzz {

// Input: the size in blocks (16 bits) and for each piece its block (16 bits), the offset within it
// divided by 8 (8 bits), its length (16 bits) and its bytes. A corpus of real file systems is small
// that way.
class DiskImage final : public firmware::BlockReader {
  public:
    explicit DiskImage(Input& input)
        : blocks_(std::size_t{input.take<std::uint16_t>()} % 16384 + 1) {
        while (!input.done() && pieces_.size() < 2000) {
            const std::uint64_t block = input.take<std::uint16_t>();
            const std::uint64_t within = std::uint64_t{input.take<std::uint8_t>()} * 8;
            store(block * 512 + within, input.take_bytes(input.take<std::uint16_t>()));
        }
    }
    [[nodiscard]] std::uint32_t block_size() const noexcept override { return 512; }
    [[nodiscard]] std::uint64_t block_count() const noexcept override { return blocks_; }
    [[nodiscard]] firmware::Result<> read(std::uint64_t lba,
                                          std::span<std::byte> to) noexcept override {
        // No reader may turn a disk's contents into endless work.
        require(++reads_ < 200'000);
        require(to.size() % 512 == 0);
        if (!contains(*this, lba, to.size() / 512))
            return firmware::fail(firmware::ErrorCode::Io, "outside the disk", lba);
        load(lba * 512, to);
        return {};
    }

    void load(std::uint64_t offset, std::span<std::byte> to) const noexcept {
        std::ranges::fill(to, std::byte{0});
        for (const auto& piece : pieces_) {
            const std::uint64_t first = std::max(offset, piece.offset);
            const std::uint64_t end =
                std::min(offset + to.size(), piece.offset + piece.bytes.size());
            if (first < end)
                std::memcpy(to.data() + (first - offset),
                            piece.bytes.data() + (first - piece.offset), end - first);
        }
    }
    template <class T>
    [[nodiscard]] T load(std::uint64_t offset) const noexcept {
        T value;
        load(offset, std::as_writable_bytes(std::span(&value, 1)));
        return value;
    }
    // Later pieces cover earlier ones. The bytes must stay.
    void store(std::uint64_t offset, std::span<const std::byte> bytes) {
        pieces_.push_back({offset, bytes});
    }

  private:
    struct Piece {
        std::uint64_t offset;
        std::span<const std::byte> bytes;
    };
    std::uint64_t blocks_;
    std::vector<Piece> pieces_;
    std::size_t reads_ = 0;
};

}  // namespace masu::fuzz

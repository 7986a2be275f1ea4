// A disk made of a fuzzer's bytes, sparse: a stream of (where, what) patches over zeros.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "firmware/arena.hpp"
#include "firmware/fs/block_reader.hpp"
#include "tests/fuzz/input.hpp"

namespace masu::fuzz {

// Input: the size in blocks (16 bits) and for each piece its block (16 bits), the offset within it
// divided by 8 (8 bits), its length (16 bits) and its bytes. A corpus of real file systems is small
// that way.
class DiskImage final : public firmware::BlockReader {
  public:
    explicit DiskImage(Input& input)
        : bytes_((std::size_t{input.take<std::uint16_t>()} % 16384 + 1) * 512) {
        while (!input.done()) {
            const std::size_t block = input.take<std::uint16_t>();
            const std::size_t within = std::size_t{input.take<std::uint8_t>()} * 8;
            const std::size_t at = block * 512 + within;
            const auto piece = input.take_bytes(input.take<std::uint16_t>());
            if (at < bytes_.size())
                std::copy_n(piece.begin(), std::min(piece.size(), bytes_.size() - at),
                            bytes_.begin() + static_cast<std::ptrdiff_t>(at));
        }
    }
    [[nodiscard]] std::uint32_t block_size() const noexcept override { return 512; }
    [[nodiscard]] std::uint64_t block_count() const noexcept override {
        return bytes_.size() / 512;
    }
    [[nodiscard]] firmware::Result<> read(std::uint64_t lba,
                                          std::span<std::byte> to) noexcept override {
        // No reader may turn a disk's contents into endless work.
        require(++reads_ < 200'000);
        require(to.size() % 512 == 0);
        if (!contains(*this, lba, to.size() / 512))
            return firmware::fail(firmware::ErrorCode::Io, "outside the disk", lba);
        std::memcpy(to.data(), bytes_.data() + lba * 512, to.size());
        return {};
    }
    [[nodiscard]] std::vector<std::byte>& bytes() noexcept { return bytes_; }

  private:
    std::vector<std::byte> bytes_;
    std::size_t reads_ = 0;
};

}  // namespace masu::fuzz

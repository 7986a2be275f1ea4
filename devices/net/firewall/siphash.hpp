// SipHash (Aumasson, Bernstein 2012): a keyed hash whose collisions nobody finds without the key.
#pragma once

#include <bit>
#include <cstdint>

namespace masu::net {

struct SipKey {
    std::uint64_t k0 = 0;
    std::uint64_t k1 = 0;
};

// Takes whole 64-bit words, of a number that the caller fixes per use; `finish` adds the length
// word. SipHash-1-3 is the hash tables' choice, 2-4 the published test vectors'.
template <int compression, int finalization>
class SipHash {
  public:
    explicit constexpr SipHash(const SipKey& key) noexcept
        : v0_(key.k0 ^ 0x736f6d6570736575U),
          v1_(key.k1 ^ 0x646f72616e646f6dU),
          v2_(key.k0 ^ 0x6c7967656e657261U),
          v3_(key.k1 ^ 0x7465646279746573U) {}

    constexpr SipHash& word(std::uint64_t value) noexcept {
        v3_ ^= value;
        for (int i = 0; i < compression; ++i)
            round();
        v0_ ^= value;
        return *this;
    }

    // `tail` holds the last bytes that fill no word, and the total length in its top byte.
    [[nodiscard]] constexpr std::uint64_t finish(std::uint64_t tail) noexcept {
        word(tail);
        v2_ ^= 0xff;
        for (int i = 0; i < finalization; ++i)
            round();
        return v0_ ^ v1_ ^ v2_ ^ v3_;
    }

  private:
    constexpr void round() noexcept {
        v0_ += v1_;
        v2_ += v3_;
        v1_ = std::rotl(v1_, 13) ^ v0_;
        v3_ = std::rotl(v3_, 16) ^ v2_;
        v0_ = std::rotl(v0_, 32);
        v2_ += v1_;
        v0_ += v3_;
        v1_ = std::rotl(v1_, 17) ^ v2_;
        v3_ = std::rotl(v3_, 21) ^ v0_;
        v2_ = std::rotl(v2_, 32);
    }

    std::uint64_t v0_, v1_, v2_, v3_;
};

}  // namespace masu::net

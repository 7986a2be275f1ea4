// Session tokens of the metadata service: made at random, good until they expire.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/clock.hpp"

namespace masu::net {

// A bounded table: the guest can forget its own tokens by asking for very many, and nothing else.
// They live in this object only, so a clone of the VM has none of them. One thread.
class SessionTokens {
  public:
    static constexpr std::size_t max_tokens = 1024;
    static constexpr unsigned max_ttl_seconds = 21600;

    // A new token; when the table is full, the one that expires first gives way. Empty when the
    // host has no randomness to give.
    [[nodiscard]] std::string create(unsigned ttl_seconds, Nanoseconds now);
    [[nodiscard]] bool valid(std::string_view token, Nanoseconds now) const;
    void clear() noexcept { expiry_.clear(); }

  private:
    std::unordered_map<std::string, Nanoseconds> expiry_;
};

}  // namespace masu::net

// 30 random bytes as 40 characters a token.
#include "devices/net/metadata/tokens.hpp"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cstdint>

namespace masu::net {

std::string SessionTokens::create(unsigned ttl_seconds, Nanoseconds now) {
    constexpr std::string_view alphabet =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    std::array<std::uint8_t, 40> random{};
    if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size()))
        return {};
    std::string token;
    for (const auto byte : random)
        token += alphabet[byte % alphabet.size()];
    if (expiry_.size() >= max_tokens) {
        std::erase_if(expiry_, [&](const auto& entry) { return entry.second <= now; });
        if (expiry_.size() >= max_tokens)
            expiry_.erase(std::ranges::min_element(expiry_, {},
                                                   [](const auto& entry) { return entry.second; }));
    }
    expiry_.emplace(token, now + Nanoseconds{ttl_seconds} * 1'000'000'000);
    return token;
}

bool SessionTokens::valid(std::string_view token, Nanoseconds now) const {
    const auto found = expiry_.find(std::string(token));
    return found != expiry_.end() && now < found->second;
}

}  // namespace masu::net

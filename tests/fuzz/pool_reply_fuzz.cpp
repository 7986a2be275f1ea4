// What a worker answers its pool, in pieces: every reply taken is within bounds, cut anywhere it is
// the same, and what is left is the rest.
#include <cstdint>
#include <string>

#include "tests/fuzz/input.hpp"
#include "vmm/pool/reply_parser.hpp"

using namespace masu;
using masu::fuzz::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string whole(data, data + size);
    std::string pieces;
    for (;;) {
        const auto before = whole.size();
        const auto reply = pool::take_reply(whole);
        if (!reply) {
            require(!reply.error().message.empty());
            return 0;
        }
        if (!reply->has_value())
            return 0;
        require(whole.size() < before);
        require((*reply)->status >= 200 && (*reply)->status < 600);
        require((*reply)->body.size() <= pool::max_reply_body);
        const auto consumed = before - whole.size();
        const auto* const begin = reinterpret_cast<const char*>(data) + size - before;
        pieces.assign(begin, consumed - 1);
        const auto early = pool::take_reply(pieces);
        require(!early || !early->has_value());
    }
}

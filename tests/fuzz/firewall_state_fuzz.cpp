// Saved firewall state of any content: loaded whole or not at all, and then saved as it was loaded.
#include <cstdint>

#include "devices/net/firewall/firewall.hpp"
#include "tests/fuzz/input.hpp"

using namespace masu::net;
using masu::fuzz::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    auto firewall = Firewall::create({}, {.max_flows = 1000});
    require(firewall.has_value());
    constexpr masu::Nanoseconds now = 5;
    if (!(*firewall)->load(std::as_bytes(std::span(data, size)), now)) {
        require((*firewall)->flow_count() == 0);
        return 0;
    }
    auto again = Firewall::create({}, {.max_flows = 1000});
    require((*again)->load((*firewall)->save(now), now).has_value());
    return 0;
}

// Any frame, its beginning only or whole: nothing is read or written beyond it, its own structure
// stays, and a second translation undoes the first.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "devices/net/firewall/wire.hpp"
#include "devices/net/mac_translation.hpp"
#include "tests/fuzz/input.hpp"

using namespace masu;
using namespace masu::net;
using masu::fuzz::Input;
using masu::fuzz::require;

namespace {

constexpr MacAddress guest_mac{6, 0, 0, 0, 0, 1};
constexpr MacAddress network_mac{6, 0xaa, 0xbb, 0xcc, 0xdd, 0xee};

using Bytes = std::vector<std::byte>;

// A checksum of zero has two forms, and only one of them is what RFC 1624 yields.
bool is_same(const Bytes& left, const Bytes& right) {
    std::size_t at = 0;
    while (at < left.size() && left[at] == right[at])
        ++at;
    if (at == left.size())
        return true;
    const auto is_zero = [](std::uint16_t sum) { return sum == 0 || sum == 0xffff; };
    if (at + 2 > left.size() || !is_zero(get16(&left[at])) || !is_zero(get16(&right[at])))
        return false;
    for (at += 2; at < left.size(); ++at)
        if (left[at] != right[at])
            return false;
    return true;
}

}  // namespace

// The NetHeader before the frame, and the frame.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input(data, size);
    const auto header = input.take<NetHeader>();
    const auto rest = input.take_bytes(size);
    const Bytes frame(rest.begin(), rest.end());
    const MacTranslation translation(guest_mac, network_mac);
    auto out = frame;
    translation.apply(header, out);
    if (frame.size() >= 14)
        require(get_mac(&out[0]) != guest_mac || get_mac(&frame[0]) == network_mac);
    if (frame.size() >= 14)
        require(get16(&out[12]) == get16(&frame[12]));
    for (std::size_t at = MacTranslation::depth; at < frame.size(); ++at)
        require(out[at] == frame[at]);
    auto back = out;
    translation.apply(header, back);
    require(is_same(frame, back));
    // Of one MAC alone there is nothing to translate, not even a checksum.
    auto same = frame;
    MacTranslation(guest_mac, guest_mac).apply(header, same);
    require(is_same(frame, same));
    return 0;
}

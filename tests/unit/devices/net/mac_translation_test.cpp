// Two MACs that change places: messages written out byte by byte as RFC 826, 2131, 2132, 4861 and
// IEEE 802.1Q have them, their checksums worked out elsewhere, and whatever else a guest may send.
#include "devices/net/mac_translation.hpp"

#include <doctest/doctest.h>

#include <charconv>
#include <random>

#include "tests/unit/devices/net/fake_network.hpp"

namespace masu::net {
namespace {

using namespace fake;

constexpr MacAddress own{0x06, 0, 0, 0, 0, 1};
constexpr MacAddress known{0x06, 0xaa, 0xbb, 0xcc, 0xdd, 0xee};
constexpr MacTranslation translation(own, known);

// "06 0a MAC 00": `mac` and the checksum `sum` stand for MAC and SUM, so many zeros for "*8".
Bytes frame(std::string_view words, const MacAddress& mac, std::uint16_t sum = 0) {
    Bytes bytes;
    for (std::size_t at = 0; at < words.size();) {
        const auto end = std::min(words.find(' ', at), words.size());
        const auto word = words.substr(at, end - at);
        at = end + 1;
        if (word == "MAC") {
            bytes = bytes + bytes_of(mac);
        } else if (word == "SUM") {
            bytes = bytes + be16(sum);
        } else if (!word.empty()) {
            const bool zeros = word.front() == '*';
            unsigned value = 0;
            std::from_chars(word.begin() + (zeros ? 1 : 0), word.end(), value, zeros ? 10 : 16);
            bytes.resize(bytes.size() + (zeros ? value : 1));
            if (!zeros)
                bytes.back() = static_cast<std::byte>(value);
        }
    }
    return bytes;
}

Bytes translated(Bytes bytes, const NetHeader& header = {}) {
    translation.apply(header, bytes);
    return bytes;
}

struct Message {
    std::string_view words;
    std::uint16_t own_sum = 0;    // with the guest's MAC
    std::uint16_t known_sum = 0;  // with the network's
    [[nodiscard]] Bytes of(const MacAddress& mac) const {
        return frame(words, mac, mac == own ? own_sum : known_sum);
    }
};

constexpr Message arp_request{
    "ff ff ff ff ff ff MAC 08 06 00 01 08 00 06 04 00 01 MAC 0a 00 00 0a *6 0a 00 00 01"};
constexpr Message arp_reply{
    "MAC 02 00 00 00 00 99 08 06 00 01 08 00 06 04 00 02 02 00 00 00 00 99 0a 00 00 01 "
    "MAC 0a 00 00 0a"};
constexpr Message neighbor_solicitation{
    "33 33 ff 00 00 01 MAC 86 dd 60 00 00 00 00 20 3a ff fd *14 10 ff 02 *9 01 ff 00 00 01 "
    "87 00 SUM 00 00 00 00 fd *14 01 01 01 MAC",
    0x798a, 0xdf25};
constexpr Message neighbor_advertisement{
    "02 00 00 00 00 99 MAC 86 dd 60 00 00 00 00 20 3a ff fd *14 10 fd *14 01 "
    "88 00 SUM 60 00 00 00 fd *14 10 02 01 MAC",
    0x187f, 0x7e1a};
constexpr Message router_solicitation{
    "33 33 00 00 00 02 MAC 86 dd 60 00 00 00 00 10 3a ff fe 80 *12 12 34 ff 02 *13 02 "
    "85 00 SUM 00 00 00 00 01 01 MAC",
    0x63f9, 0xc994};
// With an MTU option before the address.
constexpr Message router_advertisement{
    "33 33 00 00 00 01 MAC 86 dd 60 00 00 00 00 20 3a ff fe 80 *12 12 34 ff 02 *13 01 "
    "86 00 SUM 40 00 07 08 *8 05 01 00 00 00 00 05 dc 01 01 MAC",
    0x1105, 0x76a0};
constexpr Message redirect{
    "02 00 00 00 00 99 MAC 86 dd 60 00 00 00 00 30 3a ff fe 80 *12 12 34 fd *14 01 "
    "89 00 SUM 00 00 00 00 fd *14 02 fd *14 02 02 01 MAC",
    0x66d6, 0xcc71};
// With a host name of three bytes, so that the client identifier's MAC lies at an odd place.
constexpr Message dhcp_discover{
    "ff ff ff ff ff ff MAC 08 00 45 00 01 1e 00 00 00 00 40 11 79 d0 00 00 00 00 ff ff ff ff "
    "00 44 00 43 01 0a SUM 01 01 06 00 39 03 f3 26 *20 MAC *10 *192 63 82 53 63 "
    "35 01 01 0c 03 77 65 62 3d 07 01 MAC ff",
    0x2e4f, 0x2f50};

constexpr std::array messages{arp_request,
                              arp_reply,
                              neighbor_solicitation,
                              neighbor_advertisement,
                              router_solicitation,
                              router_advertisement,
                              redirect,
                              dhcp_discover};

// Equal, but for the two forms that a sum of zero has.
bool is_same(const Bytes& left, const Bytes& right) {
    const auto differ = std::ranges::mismatch(left, right);
    if (differ.in1 == left.end() || differ.in2 == right.end())
        return left.size() == right.size();
    const auto at = (differ.in1 - left.begin()) & ~1;
    auto patched = left;
    if (static_cast<std::size_t>(at) + 2 > left.size())
        return false;
    const auto a = get16(&left[at]);
    const auto b = get16(&right[at]);
    put16(&patched[at], b);
    return (a == 0 || a == 0xffff) && (b == 0 || b == 0xffff) && patched == right;
}

}  // namespace

TEST_CASE("messages that name the MAC are the other's, with its checksum, and back") {
    for (const auto& message : messages) {
        CAPTURE(message.words);
        CHECK(translated(message.of(own)) == message.of(known));
        CHECK(translated(message.of(known)) == message.of(own));
    }
}

TEST_CASE("a frame of anything else has its ends translated, and nothing more") {
    const auto words =
        "02 00 00 00 00 99 MAC 08 00 45 00 00 1c *4 40 11 00 00 0a 00 00 0a "
        "0a 00 00 0b 03 e8 07 d0 00 08 00 00";
    CHECK(translated(frame(words, own)) == frame(words, known));
    // The MAC as payload is payload.
    const auto payload = frame("02 00 00 00 00 99 02 00 00 00 00 98 88 b5 MAC MAC", own);
    CHECK(translated(payload) == payload);
    const auto strangers = frame("02 00 00 00 00 99 02 00 00 00 00 98 08 00", own);
    CHECK(translated(strangers) == strangers);
}

TEST_CASE("the guest a clone was copied from is seen under the address that is left over") {
    const auto from_original = frame("06 aa bb cc dd ee 06 00 00 00 00 01 88 b5", own);
    CHECK(translated(from_original) == frame("06 00 00 00 00 01 06 aa bb cc dd ee 88 b5", own));
    // What a bridge floods for the original is not for the copy.
    const auto for_original = frame("06 00 00 00 00 01 02 00 00 00 00 99 88 b5", own);
    CHECK(translated(for_original) == frame("06 aa bb cc dd ee 02 00 00 00 00 99 88 b5", own));
}

TEST_CASE("a checksum that is completed later, or is not there, stays") {
    const NetHeader needs{.flags = hdr_f_needs_csum, .csum_start = 54, .csum_offset = 2};
    // The sum of the pseudo header alone.
    const Message partial{neighbor_solicitation.words, 0xfb70, 0xfb70};
    CHECK(translated(partial.of(own), needs) == partial.of(known));
    // Where the offload is about another field, this one is complete.
    const NetHeader other{.flags = hdr_f_needs_csum, .csum_start = 54, .csum_offset = 4};
    CHECK(translated(neighbor_solicitation.of(own), other) == neighbor_solicitation.of(known));
    const Message without{dhcp_discover.words, 0, 0};
    CHECK(translated(without.of(own)) == without.of(known));
}

TEST_CASE("UDP's sum of zero is sent as all ones, ICMPv6's as it is") {
    // What the sum must have been, for the translated one to be zero.
    const auto all_ones = static_cast<std::uint16_t>(0x2e4f + 0xffff - 0x2f50);
    CHECK(translated(frame(dhcp_discover.words, own, all_ones)) ==
          frame(dhcp_discover.words, known, 0xffff));
    const auto zero = static_cast<std::uint16_t>(0x798a + 0xffff - 0xdf25);
    CHECK(translated(frame(neighbor_solicitation.words, own, zero)) ==
          frame(neighbor_solicitation.words, known, 0));
}

TEST_CASE("one tag or two before a message change nothing about it, three hide it") {
    for (const auto* tags : {"81 00 00 05", "88 a8 00 07 81 00 00 05"})
        for (const auto& message : messages) {
            const auto tagged = [&](const MacAddress& mac) {
                auto bytes = message.of(mac);
                const auto inserted = frame(tags, mac);
                bytes.insert(bytes.begin() + 12, inserted.begin(), inserted.end());
                return bytes;
            };
            CHECK(translated(tagged(own)) == tagged(known));
            CHECK(translated(tagged(known)) == tagged(own));
        }
    auto deep = arp_request.of(own);
    const auto three = frame("81 00 00 01 81 00 00 02 81 00 00 03", own);
    deep.insert(deep.begin() + 12, three.begin(), three.end());
    auto ends_only = deep;
    std::ranges::copy(known, reinterpret_cast<std::uint8_t*>(&ends_only[6]));
    CHECK(translated(deep) == ends_only);
    // The place that an offload names counts from the frame's start.
    const NetHeader needs{.flags = hdr_f_needs_csum, .csum_start = 58, .csum_offset = 2};
    auto partial = frame(neighbor_solicitation.words, own, 0xfb70);
    auto expected = frame(neighbor_solicitation.words, known, 0xfb70);
    const auto tag = frame("81 00 00 05", own);
    partial.insert(partial.begin() + 12, tag.begin(), tag.end());
    expected.insert(expected.begin() + 12, tag.begin(), tag.end());
    CHECK(translated(partial, needs) == expected);
}

TEST_CASE("what follows the packet in the frame is no option") {
    auto bytes = neighbor_solicitation.of(own);
    put16(&bytes[18], 24);  // the IPv6 payload ends before the option
    const auto ends_only = translated(bytes);
    CHECK(std::equal(ends_only.begin() + 14, ends_only.end(), bytes.begin() + 14));
    // An option of no size ends the list; one of another size is of another link layer.
    for (const unsigned size : {0U, 2U}) {
        bytes = neighbor_solicitation.of(own);
        bytes[79] = static_cast<std::byte>(size);
        const auto after = translated(bytes);
        CHECK(std::equal(after.begin() + 14, after.end(), bytes.begin() + 14));
    }
}

TEST_CASE("ARP and DHCP of other hardware stay") {
    auto arp = arp_request.of(own);
    arp[15] = std::byte{6};  // IEEE 802
    auto after = translated(arp);
    CHECK(std::equal(after.begin() + 14, after.end(), arp.begin() + 14));
    auto dhcp = dhcp_discover.of(own);
    dhcp[14 + 20 + 8 + 1] = std::byte{6};
    after = translated(dhcp);
    CHECK(std::equal(after.begin() + 14, after.end(), dhcp.begin() + 14));
}

TEST_CASE("cut off anywhere, a frame is not read beyond its end, and comes back as it was") {
    for (const auto& message : messages) {
        const auto whole = message.of(own);
        for (std::size_t size = 0; size <= whole.size(); ++size) {
            // Of exactly that size, for a sanitizer to see what lies beyond.
            const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
            CHECK(is_same(translated(translated(cut)), cut));
        }
    }
}

TEST_CASE("there and back again is the same frame, whatever it holds") {
    std::mt19937 random(4711);
    std::uint64_t changed = 0;
    for (int i = 0; i < 20000; ++i) {
        auto bytes = messages[random() % messages.size()].of(random() % 2 == 0 ? own : known);
        for (unsigned hits = random() % 4; hits > 0; --hits)
            bytes[random() % bytes.size()] = static_cast<std::byte>(random());
        if (random() % 8 == 0)
            bytes.resize(random() % (bytes.size() + 64));
        const NetHeader header{.flags = static_cast<std::uint8_t>(random() % 2),
                               .csum_start = static_cast<std::uint16_t>(random() % 64),
                               .csum_offset = static_cast<std::uint16_t>(random() % 8)};
        const auto out = translated(bytes, header);
        REQUIRE(out.size() == bytes.size());
        REQUIRE(is_same(translated(out, header), bytes));
        changed += out != bytes ? 1 : 0;
    }
    CHECK(changed > 10000);
}

TEST_CASE("a right checksum is right on the other side, whatever the message holds") {
    std::mt19937 random(42);
    for (int i = 0; i < 2000; ++i) {
        auto bytes = neighbor_solicitation.of(own);
        for (std::size_t at = 62; at < 78; ++at)  // the target
            bytes[at] = static_cast<std::byte>(random());
        const auto sum = [](Bytes& message) {
            // Of source, destination, length and protocol, then the message (RFC 8200, 8.1).
            const auto all = std::span<const std::byte>(message);
            return checksum_finish(
                checksum_add(checksum_add(0, all.subspan(22)), frame("00 20 00 3a", own)));
        };
        put16(&bytes[56], 0);
        put16(&bytes[56], sum(bytes));
        REQUIRE(sum(bytes) == 0);
        auto out = translated(bytes);
        REQUIRE(sum(out) == 0);
    }
}

TEST_CASE("a backend is spoken to in the network's MAC, and heard in the guest's") {
    auto fake = std::make_unique<FakeBackend>();
    auto& wire = *fake;
    TranslatingBackend backend(std::move(fake), translation);
    const NetHeader header;
    auto head = neighbor_solicitation.of(own);
    const auto tail = text("payload");
    const std::array packet{
        iovec{.iov_base = const_cast<NetHeader*>(&header), .iov_len = sizeof header},
        iovec{.iov_base = head.data(), .iov_len = head.size()},
        iovec{.iov_base = const_cast<std::byte*>(tail.data()), .iov_len = tail.size()}};
    CHECK(backend.send(0, packet) == IoStatus::Done);
    REQUIRE(wire.sent.size() == 1);
    CHECK(wire.sent[0].frame == neighbor_solicitation.of(known) + tail);
    wire.put(arp_reply.of(known));
    Bytes buffer(4096);
    const auto received = backend.receive(0, buffer);
    REQUIRE(received.status == IoStatus::Done);
    buffer.resize(received.size);
    CHECK(buffer == bytes_of(header) + arp_reply.of(own));
    CHECK(backend.receive(0, buffer).status == IoStatus::Again);
    wire.put({});  // a header and no frame
    CHECK(backend.receive(0, buffer).size == sizeof header);
}

}  // namespace masu::net

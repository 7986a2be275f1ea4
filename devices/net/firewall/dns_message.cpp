// Reading and writing the few DNS messages the firewall looks at.
#include "devices/net/firewall/dns_message.hpp"

#include <algorithm>
#include <cstring>

#include "devices/net/firewall/wire.hpp"

namespace masu::net {
namespace {

constexpr std::size_t header_size = 12;
constexpr std::size_t max_records = 128;
constexpr int max_aliases = 8;
constexpr int max_pointers = 16;

constexpr std::uint16_t type_a = 1;
constexpr std::uint16_t type_cname = 5;
constexpr std::uint16_t type_aaaa = 28;
constexpr std::uint16_t type_opt = 41;
constexpr std::uint16_t class_in = 1;

struct Header {
    std::uint16_t id;
    std::uint16_t flags;
    std::uint16_t questions;
    std::uint16_t answers;
    std::uint16_t authorities;
    std::uint16_t additionals;
    [[nodiscard]] bool is_response() const noexcept { return (flags & 0x8000) != 0; }
    [[nodiscard]] unsigned opcode() const noexcept { return (flags >> 11) & 0xf; }
    [[nodiscard]] unsigned rcode() const noexcept { return flags & 0xf; }
};

std::optional<Header> read_header(std::span<const std::byte> message) noexcept {
    if (message.size() < header_size)
        return std::nullopt;
    const auto* at = message.data();
    return Header{get16(at),     get16(at + 2), get16(at + 4),
                  get16(at + 6), get16(at + 8), get16(at + 10)};
}

// Reads a name at `at`, following compression pointers (which only ever point back, to a name, so
// not into the header: what stands there changes in an answer). Returns where the name ends in
// place, or nothing. `plain` is cleared when a label holds odd characters: such a name is skipped,
// and equals none that a rule could state.
std::optional<std::size_t> read_name(std::span<const std::byte> message, std::size_t at,
                                     DnsText& text, bool& plain) noexcept {
    text.clear();
    std::optional<std::size_t> end;
    std::size_t total = 0;
    int pointers = 0;
    for (;;) {
        if (at >= message.size())
            return std::nullopt;
        const std::size_t length = get8(&message[at]);
        if (length == 0)
            return end ? end : at + 1;
        if (length >= 0xc0) {
            if (at + 2 > message.size() || ++pointers > max_pointers)
                return std::nullopt;
            if (!end)
                end = at + 2;
            const std::size_t target = get16(&message[at]) & 0x3fff;
            if (target >= at || target < header_size)
                return std::nullopt;
            at = target;
            continue;
        }
        total += length + 1;
        if (length > 63 || total > 254 || at + 1 + length > message.size())
            return std::nullopt;
        plain = text.append_label(message.subspan(at + 1, length)) && plain;
        at += 1 + length;
    }
}

struct Record {
    DnsText name;
    bool plain = true;
    std::uint16_t type = 0;
    std::uint16_t klass = 0;
    std::uint32_t ttl = 0;
    std::size_t data = 0;  // position
    std::size_t size = 0;
    std::size_t end = 0;
};

bool read_record(std::span<const std::byte> message, std::size_t at, Record& record) noexcept {
    record.plain = true;
    const auto end = read_name(message, at, record.name, record.plain);
    if (!end || *end + 10 > message.size())
        return false;
    const auto* fixed = &message[*end];
    record.type = get16(fixed);
    record.klass = get16(fixed + 2);
    record.ttl = get32(fixed + 4);
    record.size = get16(fixed + 8);
    record.data = *end + 10;
    record.end = record.data + record.size;
    return record.end <= message.size();
}

// Where the question ends, or nothing.
std::optional<std::size_t> read_question(std::span<const std::byte> message,
                                         DnsQuestion& question) noexcept {
    bool plain = true;
    const auto end = read_name(message, header_size, question.name, plain);
    // A compressed question name would have nothing to point at.
    if (!end || !plain || *end + 4 > message.size())
        return std::nullopt;
    question.id = get16(message.data());
    question.type = get16(&message[*end]);
    question.bytes = message.subspan(header_size, *end + 4 - header_size);
    if (get16(&message[*end + 2]) != class_in)
        return std::nullopt;
    return *end + 4;
}

struct Alias {
    DnsText name;
    std::uint32_t ttl;
};

// One pass over the answer section. `visit` returns false to end it.
template <class Visit>
bool for_each_answer(std::span<const std::byte> message, std::size_t at, unsigned count,
                     Visit&& visit) noexcept {
    Record record;
    for (unsigned i = 0; i < count; ++i) {
        if (!read_record(message, at, record))
            return false;
        at = record.end;
        if (record.plain && record.klass == class_in && !visit(record))
            break;
    }
    return true;
}

// RFC 2181, 8: a TTL with the top bit set counts as 0.
std::uint32_t sane_ttl(std::uint32_t ttl) noexcept {
    return ttl > 0x7fff'ffffU ? 0 : ttl;
}

// Follows CNAMEs from the question's name to the name that has the addresses.
bool follow_aliases(std::span<const std::byte> message, std::size_t at, unsigned count,
                    Alias& alias) noexcept {
    for (int step = 0; step <= max_aliases; ++step) {
        bool found = false;
        bool good = true;
        const bool readable = for_each_answer(message, at, count, [&](const Record& record) {
            if (record.type != type_cname || record.name.view() != alias.name.view())
                return true;
            bool plain = true;
            const auto end = read_name(message, record.data, alias.name, plain);
            good = end && *end == record.end && plain;
            alias.ttl = std::min(alias.ttl, sane_ttl(record.ttl));
            found = true;
            return false;
        });
        if (!readable || !good)
            return false;
        if (!found)
            return true;
    }
    return false;
}

}  // namespace

bool DnsText::append_label(std::span<const std::byte> label) noexcept {
    if (size_ + label.size() + 1 > max_size)
        return false;
    if (size_ != 0)
        text_[size_++] = '.';
    for (const auto byte : label) {
        auto c = static_cast<char>(byte);
        if (c >= 'A' && c <= 'Z')
            c = static_cast<char>(c - 'A' + 'a');
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '*'))
            return false;
        text_[size_++] = c;
    }
    return true;
}

std::optional<DnsQuestion> read_dns_query(std::span<const std::byte> message) noexcept {
    const auto header = read_header(message);
    if (!header || header->is_response() || header->opcode() != 0 || header->questions != 1 ||
        header->answers != 0 || header->authorities != 0 || header->additionals > 1)
        return std::nullopt;
    DnsQuestion question;
    auto at = read_question(message, question);
    if (!at)
        return std::nullopt;
    if (header->additionals == 1) {
        Record record;
        if (!read_record(message, *at, record) || record.type != type_opt ||
            !record.name.view().empty())
            return std::nullopt;
        question.has_edns = true;
        at = record.end;
    }
    // What follows the last record would leave unread.
    if (*at != message.size())
        return std::nullopt;
    return question;
}

bool read_dns_answer(std::span<const std::byte> message, DnsAnswer& answer) noexcept {
    answer.count = 0;
    const auto header = read_header(message);
    if (!header || !header->is_response() || header->opcode() != 0 || header->questions != 1 ||
        header->answers > max_records)
        return false;
    const auto at = read_question(message, answer.question);
    if (!at)
        return false;
    if (header->rcode() != 0)
        return true;
    Alias alias{answer.question.name, 0x7fff'ffffU};
    if (!follow_aliases(message, *at, header->answers, alias))
        return false;
    return for_each_answer(message, *at, header->answers, [&](const Record& record) {
        const bool is_a = record.type == type_a && record.size == 4;
        const bool is_aaaa = record.type == type_aaaa && record.size == 16;
        if ((!is_a && !is_aaaa) || record.name.view() != alias.name.view())
            return true;
        const auto* data = &message[record.data];
        answer.entries[answer.count++] = {is_a ? get_address4(data) : get_address6(data),
                                          std::min(alias.ttl, sane_ttl(record.ttl))};
        return answer.count < DnsAnswer::max_addresses;
    });
}

std::size_t write_dns_refusal(const DnsQuestion& question, bool recursion_desired,
                              std::span<std::byte, max_refusal> out) noexcept {
    constexpr std::uint16_t response = 0x8000;
    constexpr std::uint16_t recursion_available = 0x0080;
    constexpr std::uint16_t refused = 5;
    std::ranges::fill(out, std::byte{0});
    put16(&out[0], question.id);
    put16(&out[2], static_cast<std::uint16_t>(response | recursion_available | refused |
                                              (recursion_desired ? 0x0100 : 0)));
    put16(&out[4], 1);
    std::memcpy(&out[header_size], question.bytes.data(), question.bytes.size());
    auto size = header_size + question.bytes.size();
    if (!question.has_edns)
        return size;
    // OPT (RFC 6891, 6.1.2) with the option EDE (RFC 8914, 2): code 15, length 2, 18 "Prohibited".
    put16(&out[10], 1);
    put16(&out[size + 1], type_opt);
    put16(&out[size + 3], 1232);
    put16(&out[size + 9], 6);
    put16(&out[size + 11], 15);
    put16(&out[size + 13], 2);
    put16(&out[size + 15], 18);
    return size + 17;
}

}  // namespace masu::net

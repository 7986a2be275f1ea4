// DNS messages (RFC 1035, RFC 6891): the question of a query, the addresses of an answer, and a
// refusal. Bounded, allocates nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "devices/net/firewall/address.hpp"

namespace masu::net {

// A name as text: lower case, labels joined by dots, no final dot; the root is "".
class DnsText {
  public:
    static constexpr std::size_t max_size = 254;
    [[nodiscard]] std::string_view view() const noexcept { return {text_.data(), size_}; }
    // False when it would be too long, or holds what no host name holds (RFC 1123, and '_' and
    // '*' which services use): a label with a dot in it must not look like two labels.
    [[nodiscard]] bool append_label(std::span<const std::byte> label) noexcept;
    void clear() noexcept { size_ = 0; }

  private:
    std::array<char, max_size> text_;
    std::size_t size_ = 0;
};

struct DnsQuestion {
    std::uint16_t id = 0;
    std::uint16_t type = 0;
    DnsText name;
    // The question section as it stands in the message: an answer must repeat it to the letter,
    // which is how resolvers tell forged answers (0x20 bits).
    std::span<const std::byte> bytes;
    bool has_edns = false;
};

// A query with exactly one question of class IN, and at most an OPT record beside it; nothing when
// the message is anything else.
[[nodiscard]] std::optional<DnsQuestion> read_dns_query(
    std::span<const std::byte> message) noexcept;

struct DnsAnswer {
    static constexpr std::size_t max_addresses = 32;
    struct Entry {
        Address address;
        std::uint32_t ttl = 0;  // seconds; the least of its own and of the aliases that led to it
    };
    DnsQuestion question;
    std::array<Entry, max_addresses> entries;
    std::size_t count = 0;
};

// A response: its question and, when it succeeded, the A and AAAA records of the name asked for,
// through at most 8 CNAMEs. Nothing when the message cannot be read.
[[nodiscard]] bool read_dns_answer(std::span<const std::byte> message, DnsAnswer& answer) noexcept;

// Writes the answer to `question`: REFUSED (RFC 1035, 4.1.1), with the extended error "prohibited"
// (RFC 8914) where the query had EDNS. Returns its size; `out` has max_refusal bytes.
inline constexpr std::size_t max_refusal = 12 + 260 + 17;
std::size_t write_dns_refusal(const DnsQuestion& question, bool recursion_desired,
                              std::span<std::byte, max_refusal> out) noexcept;

}  // namespace masu::net

// Egress by DNS name: which names the guest asked for, and which addresses their answers admitted.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "devices/net/firewall/compiled_rules.hpp"
#include "devices/net/firewall/dns_message.hpp"
#include "devices/net/firewall/siphash.hpp"

namespace masu::net {

// Of one interface. A fixed number of entries; when an entry finds no room among the few places
// that its address hashes to, the one that would expire first makes way.
class NameTable {
  public:
    // A name's addresses are admitted for their TTL, but at least this long (programs look up once
    // and then connect at leisure) and at most that.
    static constexpr Nanoseconds min_lifetime = 60'000'000'000;
    static constexpr Nanoseconds max_lifetime = 24ULL * 3600 * 1'000'000'000;
    static constexpr Nanoseconds query_lifetime = 10'000'000'000;
    static constexpr std::size_t max_queries = 128;

    NameTable(const SipKey& key, std::size_t max_entries);

    // Follows a change of rules: what was admitted for a pattern that is still there stays.
    void set_patterns(std::span<const CompiledRules::NamePattern> patterns);
    // Whether there are name rules at all. Without, DNS passes unread.
    [[nodiscard]] bool active() const noexcept { return !patterns_.empty(); }

    // Whether some rule names it.
    [[nodiscard]] bool allows(std::string_view name) const noexcept;

    // A query that was let through: its answer will be believed once.
    void note_query(const Address& resolver, std::uint16_t guest_port, const DnsQuestion& question,
                    Nanoseconds now) noexcept;
    // Takes the query that this answers, or says there is none.
    [[nodiscard]] bool take_query(const Address& resolver, std::uint16_t guest_port,
                                  const DnsQuestion& question, Nanoseconds now) noexcept;

    void admit(std::string_view name, const Address& address, std::uint32_t ttl,
               Nanoseconds now) noexcept;
    // The first rule that lets the packet go to an address its name admitted, or Verdict::no_rule.
    [[nodiscard]] std::uint32_t match(std::span<const CompiledRules::NamePattern> rules,
                                      const Tuple& tuple, Nanoseconds now) const noexcept;

    struct Admission {
        std::string pattern;
        Address address;
        Nanoseconds expires = 0;
    };
    [[nodiscard]] std::vector<Admission> admissions(Nanoseconds now) const;
    void restore(const Admission& admission) noexcept;
    [[nodiscard]] std::size_t size(Nanoseconds now) const noexcept;

  private:
    static constexpr std::size_t probes = 16;
    struct Entry {
        Address address;
        std::uint32_t pattern = 0;
        Nanoseconds expires = 0;  // 0: free
    };
    struct Query {
        Address resolver;
        std::uint16_t guest_port = 0;
        std::uint16_t id = 0;
        std::uint16_t size = 0;
        Nanoseconds expires = 0;
        std::array<std::byte, 260> question;
    };
    [[nodiscard]] std::size_t home(const Address& address) const noexcept;
    void put(const Address& address, std::uint32_t pattern, Nanoseconds expires) noexcept;

    SipKey key_;
    std::size_t capacity_;
    std::vector<std::string> patterns_;
    // Both are empty while there are no patterns.
    std::vector<Entry> entries_;
    std::vector<Query> queries_;
    std::size_t next_query_ = 0;
};

}  // namespace masu::net

// Names asked for and addresses admitted.
#include "devices/net/firewall/name_table.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace masu::net {

NameTable::NameTable(const SipKey& key, std::size_t max_entries)
    : key_(key), capacity_(std::bit_ceil(std::max<std::size_t>(max_entries, probes))) {}

void NameTable::set_patterns(std::span<const CompiledRules::NamePattern> patterns) {
    constexpr std::uint32_t gone = 0xffffffff;
    std::vector<std::uint32_t> renumbered;
    for (const auto& old : patterns_) {
        const auto found = std::ranges::find(patterns, old, &CompiledRules::NamePattern::pattern);
        renumbered.push_back(
            found == patterns.end() ? gone : static_cast<std::uint32_t>(found - patterns.begin()));
    }
    for (auto& entry : entries_) {
        if (entry.expires == 0)
            continue;
        entry.pattern = renumbered[entry.pattern];
        if (entry.pattern == gone)
            entry = {};
    }
    patterns_.clear();
    for (const auto& pattern : patterns)
        patterns_.push_back(pattern.pattern);
    if (patterns_.empty()) {
        entries_ = {};
        queries_ = {};
    } else {
        entries_.resize(capacity_);
        queries_.resize(max_queries);
    }
}

bool NameTable::allows(std::string_view name) const noexcept {
    return std::ranges::any_of(patterns_,
                               [&](const auto& pattern) { return name_matches(pattern, name); });
}

void NameTable::note_query(const Address& resolver, std::uint16_t guest_port,
                           const DnsQuestion& question, Nanoseconds now) noexcept {
    if (queries_.empty() || question.bytes.size() > Query{}.question.size())
        return;
    auto& query = queries_[next_query_];
    next_query_ = (next_query_ + 1) % queries_.size();
    query.resolver = resolver;
    query.guest_port = guest_port;
    query.id = question.id;
    query.size = static_cast<std::uint16_t>(question.bytes.size());
    query.expires = now + query_lifetime;
    std::memcpy(query.question.data(), question.bytes.data(), question.bytes.size());
}

bool NameTable::take_query(const Address& resolver, std::uint16_t guest_port,
                           const DnsQuestion& question, Nanoseconds now) noexcept {
    for (auto& query : queries_) {
        if (query.expires <= now || query.id != question.id || query.guest_port != guest_port ||
            query.resolver != resolver ||
            !std::ranges::equal(std::span(query.question).first(query.size), question.bytes))
            continue;
        query.expires = 0;
        return true;
    }
    return false;
}

std::size_t NameTable::home(const Address& address) const noexcept {
    SipHash<1, 3> sip(key_);
    sip.word(address.high).word(address.low);
    return static_cast<std::size_t>(
        sip.finish(static_cast<std::uint64_t>(std::to_underlying(address.family))));
}

void NameTable::admit(std::string_view name, const Address& address, std::uint32_t ttl,
                      Nanoseconds now) noexcept {
    const auto lifetime = std::clamp(ttl * Nanoseconds{1'000'000'000}, min_lifetime, max_lifetime);
    for (std::uint32_t i = 0; i < patterns_.size(); ++i)
        if (name_matches(patterns_[i], name))
            put(address, i, now + lifetime);
}

void NameTable::put(const Address& address, std::uint32_t pattern, Nanoseconds expires) noexcept {
    const auto at = home(address);
    auto* place = &entries_[at % capacity_];
    for (std::size_t i = 0; i < probes; ++i) {
        auto& entry = entries_[(at + i) % capacity_];
        if (entry.expires != 0 && entry.address == address && entry.pattern == pattern) {
            entry.expires = std::max(entry.expires, expires);
            return;
        }
        if (entry.expires < place->expires)
            place = &entry;
    }
    *place = {address, pattern, expires};
}

std::uint32_t NameTable::match(std::span<const CompiledRules::NamePattern> rules,
                               const Tuple& tuple, Nanoseconds now) const noexcept {
    if (entries_.empty())
        return Verdict::no_rule;
    const auto at = home(tuple.destination);
    for (std::size_t i = 0; i < probes; ++i) {
        const auto& entry = entries_[(at + i) % capacity_];
        if (entry.expires <= now || entry.address != tuple.destination ||
            entry.pattern >= rules.size())
            continue;
        if (const auto rule = rules[entry.pattern].match(tuple); rule != Verdict::no_rule)
            return rule;
    }
    return Verdict::no_rule;
}

auto NameTable::admissions(Nanoseconds now) const -> std::vector<Admission> {
    std::vector<Admission> result;
    for (const auto& entry : entries_)
        if (entry.expires > now)
            result.push_back({patterns_[entry.pattern], entry.address, entry.expires});
    return result;
}

void NameTable::restore(const Admission& admission) noexcept {
    const auto found = std::ranges::find(patterns_, admission.pattern);
    if (found != patterns_.end())
        put(admission.address, static_cast<std::uint32_t>(found - patterns_.begin()),
            admission.expires);
}

std::size_t NameTable::size(Nanoseconds now) const noexcept {
    return static_cast<std::size_t>(
        std::ranges::count_if(entries_, [now](const auto& entry) { return entry.expires > now; }));
}

}  // namespace masu::net

// Lookup in compiled rules, and the tables behind it.
#include "devices/net/firewall/compiled_rules.hpp"

#include <algorithm>
#include <bit>
#include <unordered_map>

namespace masu::net {
namespace {

// The interval that `value` lies in. `starts` begins with the lowest value there is.
template <class T>
std::size_t interval_of(const std::vector<T>& starts, const T& value) noexcept {
    const T* base = starts.data();
    std::size_t count = starts.size();
    while (count > 1) {
        const auto half = count / 2;
        base = value < base[half] ? base : base + half;  // compiles to a conditional move
        count -= half;
    }
    return static_cast<std::size_t>(base - starts.data());
}

std::uint32_t bits_of(const Address& address, std::uint32_t /*tag*/) noexcept {
    return static_cast<std::uint32_t>(address.low);
}
V6Bits bits_of(const Address& address, V6Bits /*tag*/) noexcept {
    return {address.high, address.low};
}

std::optional<std::uint32_t> after(std::uint32_t bits) noexcept {
    return bits == 0xffff'ffffU ? std::nullopt : std::optional(bits + 1);
}
std::optional<V6Bits> after(V6Bits bits) noexcept {
    if (++bits.low == 0 && ++bits.high == 0)
        return std::nullopt;
    return bits;
}

// The rules that hold at the sweep's place, as a row of bits. A rule may begin several times (a
// group whose members' ranges overlap) and ends as often.
class ActiveRules {
  public:
    ActiveRules(std::size_t rules, std::size_t words) : depth_(rules), row_(words) {}
    void begin(std::uint32_t rule) {
        if (depth_[rule]++ == 0)
            row_[rule / 64] |= std::uint64_t{1} << rule % 64;
    }
    void end(std::uint32_t rule) {
        if (--depth_[rule] == 0)
            row_[rule / 64] &= ~(std::uint64_t{1} << rule % 64);
    }
    [[nodiscard]] std::span<const std::uint64_t> row() const { return row_; }

  private:
    std::vector<std::uint32_t> depth_;
    std::vector<std::uint64_t> row_;
};

}  // namespace

// A row that is there already is used again: the rows of addresses are few and alike.
template <class Bits>
class Classifier<Bits>::RowPool {
  public:
    explicit RowPool(Classifier& owner) : owner_(owner) {}
    std::uint32_t add(std::span<const std::uint64_t> row) {
        std::uint64_t hash = 0;
        for (const auto word : row)
            hash = (std::rotl(hash, 5) ^ word) * 0x9e3779b97f4a7c15U;
        const auto [first, last] = known_.equal_range(hash);
        for (auto it = first; it != last; ++it)
            if (std::ranges::equal(row, owner_.row(it->second)))
                return it->second;
        const auto index = static_cast<std::uint32_t>(owner_.rows_.size() / owner_.words_);
        owner_.rows_.insert(owner_.rows_.end(), row.begin(), row.end());
        known_.emplace(hash, index);
        return index;
    }

  private:
    Classifier& owner_;
    std::unordered_multimap<std::uint64_t, std::uint32_t> known_;
};

template <class Bits>
void Classifier<Bits>::build(std::span<const Input> inputs, std::vector<Range> ranges) {
    rules_.clear();
    rows_.clear();
    for (const auto& input : inputs)
        rules_.push_back(input.rule);
    words_ = std::max<std::size_t>(1, (inputs.size() + 63) / 64);
    RowPool pool(*this);
    build_ports(inputs, pool);
    build_addresses(std::move(ranges), pool);
}

template <class Bits>
void Classifier<Bits>::build_ports(std::span<const Input> inputs, RowPool& pool) {
    std::vector<std::uint32_t> edges{0};
    for (const auto& input : inputs) {
        edges.push_back(input.from);
        edges.push_back(input.to + 1U);
    }
    std::ranges::sort(edges);
    edges.erase(std::ranges::unique(edges).begin(), edges.end());
    while (edges.back() > 0xffff)
        edges.pop_back();

    port_starts_.clear();
    port_classes_.clear();
    std::vector<std::uint64_t> row(words_);
    for (const auto edge : edges) {
        std::ranges::fill(row, 0);
        std::uint32_t open = Verdict::no_rule;
        for (std::size_t i = 0; i < inputs.size(); ++i) {
            const auto& input = inputs[i];
            if (edge < input.from || edge > input.to)
                continue;
            if (!input.everyone)
                row[i / 64] |= std::uint64_t{1} << i % 64;
            else if (open == Verdict::no_rule)
                open = input.rule;
        }
        port_starts_.push_back(static_cast<std::uint16_t>(edge));
        port_classes_.push_back({open, pool.add(row)});
    }
}

template <class Bits>
void Classifier<Bits>::build_addresses(std::vector<Range> ranges, RowPool& pool) {
    struct Edge {
        Bits at;
        std::uint32_t rule;
        bool begins;
    };
    std::vector<Edge> edges;
    for (const auto& range : ranges) {
        edges.push_back({range.first, range.local, true});
        if (const auto next = after(range.last))
            edges.push_back({*next, range.local, false});
    }
    std::ranges::sort(edges, {}, &Edge::at);

    address_starts_.clear();
    address_rows_.clear();
    ActiveRules active(rules_.size(), words_);
    std::size_t done = 0;
    for (Bits at{};;) {
        for (; done < edges.size() && edges[done].at == at; ++done) {
            if (edges[done].begins)
                active.begin(edges[done].rule);
            else
                active.end(edges[done].rule);
        }
        const auto row = pool.add(active.row());
        if (address_rows_.empty() || address_rows_.back() != row) {
            address_starts_.push_back(at);
            address_rows_.push_back(row);
        }
        if (done == edges.size())
            break;
        at = edges[done].at;
    }
}

template <class Bits>
auto Classifier<Bits>::port_class(std::uint16_t port) const noexcept -> const PortClass& {
    return port_classes_[interval_of(port_starts_, port)];
}

template <class Bits>
std::uint32_t Classifier<Bits>::match(std::uint16_t port, const Bits& address) const noexcept {
    const auto& by_port = port_class(port);
    if (by_port.open_rule != Verdict::no_rule)
        return by_port.open_rule;
    const auto ports = row(by_port.row);
    const auto addresses = row(address_rows_[interval_of(address_starts_, address)]);
    for (std::size_t i = 0; i < words_; ++i)
        if (const auto both = ports[i] & addresses[i]; both != 0)
            return rules_[64 * i + static_cast<std::size_t>(std::countr_zero(both))];
    return Verdict::no_rule;
}

template <class Bits>
void Classifier<Bits>::add_open_ports(PortSet& ports) const noexcept {
    for (std::size_t i = 0; i < port_starts_.size(); ++i) {
        if (port_classes_[i].open_rule == Verdict::no_rule)
            continue;
        const auto end = i + 1 < port_starts_.size() ? port_starts_[i + 1] : ports.size();
        for (std::size_t port = port_starts_[i]; port < end; ++port)
            ports.set(port);
    }
}

template class Classifier<std::uint32_t>;
template class Classifier<V6Bits>;

auto CompiledRules::kind_of(std::uint8_t number) noexcept -> Kind {
    switch (number) {
        case protocol::tcp:
            return Kind::Tcp;
        case protocol::udp:
            return Kind::Udp;
        case protocol::icmp:
        case protocol::icmpv6:
            return Kind::Icmp;
        default:
            return Kind::Other;
    }
}

std::uint16_t CompiledRules::port_of(Kind kind, const Tuple& tuple) noexcept {
    return kind == Kind::Other ? tuple.protocol : tuple.destination_port;
}

auto CompiledRules::match(Direction direction, const Tuple& tuple) const noexcept -> Match {
    const auto kind = kind_of(tuple.protocol);
    const auto port = port_of(kind, tuple);
    const auto& peer = direction == Direction::Ingress ? tuple.source : tuple.destination;
    const auto way = std::to_underlying(direction);
    const auto place = std::to_underlying(kind);
    Match match;
    if (peer.family == Family::V4) {
        const auto& classifier = v4_[way][place];
        match.rule = classifier.match(port, bits_of(peer, std::uint32_t{}));
        match.everyone = match.rule != Verdict::no_rule && classifier.open_rule(port) == match.rule;
    } else {
        const auto& classifier = v6_[way][place];
        match.rule = classifier.match(port, bits_of(peer, V6Bits{}));
        match.everyone = match.rule != Verdict::no_rule && classifier.open_rule(port) == match.rule;
    }
    return match;
}

std::uint32_t CompiledRules::open_rule(Direction direction, Family family, Kind kind,
                                       std::uint16_t port) const noexcept {
    const auto way = std::to_underlying(direction);
    const auto place = std::to_underlying(kind);
    return family == Family::V4 ? v4_[way][place].open_rule(port) : v6_[way][place].open_rule(port);
}

bool CompiledRules::untracked(Direction direction, const Tuple& tuple, bool matched_everyone,
                              bool begins_flow) const noexcept {
    const auto kind = kind_of(tuple.protocol);
    if (kind != Kind::Tcp && kind != Kind::Udp)
        return false;
    const auto family = tuple.source.family;
    const auto& open = all_ports_[std::to_underlying(family)];
    const auto place = std::to_underlying(kind);
    const auto other = opposite(direction);
    if (matched_everyone && open[std::to_underlying(other)][place])
        return true;
    // Its own port is open to everyone, and this direction on all ports: both ways of such a flow
    // are judged by rules. A packet that begins a flow is nobody's reply.
    return !begins_flow && open[std::to_underlying(direction)][place] &&
           open_rule(other, family, kind, tuple.source_port) != Verdict::no_rule;
}

void CompiledRules::add_untracked_ports(Family family, PortSet& ports) const noexcept {
    constexpr auto in = std::to_underlying(Direction::Ingress);
    constexpr auto out = std::to_underlying(Direction::Egress);
    constexpr auto tcp = std::to_underlying(Kind::Tcp);
    if (!all_ports_[std::to_underlying(family)][out][tcp])
        return;
    if (family == Family::V4)
        v4_[in][tcp].add_open_ports(ports);
    else
        v6_[in][tcp].add_open_ports(ports);
}

std::uint32_t CompiledRules::NamePattern::match(const Tuple& tuple) const noexcept {
    const auto kind = kind_of(tuple.protocol);
    const auto port = port_of(kind, tuple);
    for (const auto& rule : rules) {
        if (rule.protocol == Rule::any ||
            (rule.protocol == tuple.protocol && rule.from <= port && port <= rule.to))
            return rule.rule;
    }
    return Verdict::no_rule;
}

}  // namespace masu::net

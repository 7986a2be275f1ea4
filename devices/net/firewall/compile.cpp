// From rules as people state them to tables: references spelt out, then sorted by direction, family
// and kind of protocol.
#include <algorithm>
#include <utility>

#include "devices/net/firewall/compiled_rules.hpp"
#include "devices/net/firewall/rules.hpp"

namespace masu::net {
namespace {

bool is_icmp(int number) noexcept {
    return number == protocol::icmp || number == protocol::icmpv6;
}
bool has_ports(int number) noexcept {
    return number == protocol::tcp || number == protocol::udp;
}

struct PortRange {
    std::uint16_t from = 0;
    std::uint16_t to = 0xffff;
};

// The rule's fields as a Classifier's ports. Checked by check_rule before.
PortRange ports_of(const Rule& rule) noexcept {
    if (has_ports(rule.protocol))
        return {static_cast<std::uint16_t>(rule.from), static_cast<std::uint16_t>(rule.to)};
    if (is_icmp(rule.protocol)) {
        if (rule.from == Rule::any)
            return {};
        const auto type = static_cast<unsigned>(rule.from) << 8;
        const auto code = static_cast<unsigned>(rule.to);
        if (rule.to == Rule::any)
            return {static_cast<std::uint16_t>(type), static_cast<std::uint16_t>(type | 0xff)};
        return {static_cast<std::uint16_t>(type | code), static_cast<std::uint16_t>(type | code)};
    }
    if (rule.protocol == Rule::any)
        return {};
    const auto number = static_cast<std::uint16_t>(rule.protocol);
    return {number, number};
}

Result<> check_rule(const Rule& rule) {
    const auto bad = [&rule](std::string_view what) -> Result<> {
        return fail("rule {}: {}", rule.id, what);
    };
    if (rule.protocol < Rule::any || rule.protocol > 255)
        return bad("the protocol must be -1 or 0 to 255");
    if (has_ports(rule.protocol) && (rule.from < 0 || rule.from > rule.to || rule.to > 0xffff))
        return bad("TCP and UDP need a range of ports from 0 to 65535, the lower one first");
    if (is_icmp(rule.protocol) &&
        (rule.from < Rule::any || rule.from > 255 || rule.to < Rule::any || rule.to > 255 ||
         (rule.from == Rule::any && rule.to != Rule::any)))
        return bad("ICMP types and codes are -1 or 0 to 255, and type -1 needs code -1");
    if (const auto* name = std::get_if<DnsName>(&rule.peer)) {
        if (rule.direction != Direction::Egress)
            return bad("a DNS name can only be the peer of an egress rule");
        if (name->name.empty() || name->name.size() > 253)
            return bad("a DNS name has 1 to 253 characters");
    }
    return {};
}

}  // namespace

class RuleCompiler {
  public:
    RuleCompiler(const RuleSet& rules, const GroupMembers& members)
        : rules_(rules), members_(members) {}

    Result<std::shared_ptr<const CompiledRules>> run() {
        if (rules_.rules.size() > RuleSet::max_rules)
            return fail("{} rules apply to one interface, but {} is the most it takes",
                        rules_.rules.size(), RuleSet::max_rules);
        compiled_->timeouts_ = rules_.timeouts;
        compiled_->related_icmp_errors_ = rules_.related_icmp_errors;
        compiled_->private_name_answers_ = rules_.private_name_answers;
        TRY(check_timeouts());
        for (const auto& rule : rules_.rules)
            TRY(add(rule));
        build(compiled_->v4_, v4_);
        build(compiled_->v6_, v6_);
        return std::shared_ptr<const CompiledRules>(std::move(compiled_));
    }

  private:
    using Kind = CompiledRules::Kind;

    template <class Bits>
    struct Draft {
        std::vector<typename Classifier<Bits>::Input> inputs;
        std::vector<typename Classifier<Bits>::Range> ranges;
    };
    template <class Bits>
    using Drafts = std::array<std::array<Draft<Bits>, CompiledRules::kind_count>, 2>;

    [[nodiscard]] Result<> check_timeouts() const {
        const auto& times = rules_.timeouts;
        if (times.tcp_established < 60 || times.tcp_established > 432'000)
            return fail("TcpEstablishedTimeout is {} s, but must be 60 to 432000",
                        times.tcp_established);
        if (times.udp_stream < 60 || times.udp_stream > 180)
            return fail("UdpStreamTimeout is {} s, but must be 60 to 180", times.udp_stream);
        if (times.udp < 30 || times.udp > 60)
            return fail("UdpTimeout is {} s, but must be 30 to 60", times.udp);
        return {};
    }

    Result<> add(const Rule& rule) {
        TRY(check_rule(rule));
        const auto index = static_cast<std::uint32_t>(compiled_->ids_.size());
        compiled_->ids_.push_back(rule.id);
        if (const auto* name = std::get_if<DnsName>(&rule.peer))
            return add_name(rule, name->name, index);
        const auto peers = resolve(rule.peer);
        peer_count_ += peers.size();
        if (peer_count_ > RuleSet::max_peers)
            return fail(
                "the rules of one interface name more than {} addresses and prefixes, "
                "groups and lists spelt out",
                RuleSet::max_peers);
        for (const auto family : {Family::V4, Family::V6})
            add_family(rule, family, peers, index);
        return {};
    }

    Result<> add_name(const Rule& rule, const std::string& pattern, std::uint32_t index) {
        auto& names = compiled_->names_;
        auto found = std::ranges::find(names, pattern, &CompiledRules::NamePattern::pattern);
        if (found == names.end()) {
            if (names.size() == CompiledRules::max_names)
                return fail("the rules of one interface name more than {} DNS names",
                            CompiledRules::max_names);
            names.push_back({pattern, {}});
            found = names.end() - 1;
        }
        const auto ports = ports_of(rule);
        found->rules.push_back({.protocol = static_cast<std::int16_t>(rule.protocol),
                                .from = ports.from,
                                .to = ports.to,
                                .rule = index});
        return {};
    }

    [[nodiscard]] std::vector<Prefix> resolve(const Peer& peer) const {
        if (const auto* prefix = std::get_if<Prefix>(&peer))
            return {*prefix};
        std::vector<Prefix> result;
        if (const auto* list = std::get_if<PrefixListReference>(&peer)) {
            if (const auto it = rules_.prefix_lists.find(list->list_id);
                it != rules_.prefix_lists.end())
                result = it->second;
        } else if (const auto* group = std::get_if<GroupReference>(&peer)) {
            if (const auto it = members_.find(group->group_id); it != members_.end())
                for (const auto& address : it->second)
                    result.push_back(Prefix::host(address));
        }
        return result;
    }

    void add_family(const Rule& rule, Family family, const std::vector<Prefix>& peers,
                    std::uint32_t index) {
        bool any = false;
        bool everyone = false;
        for (const auto& peer : peers) {
            any = any || peer.address.family == family;
            // Only a rule that says so itself is open to everyone in EC2's sense; a prefix list
            // that holds 0.0.0.0/0 admits all the same, but its flows are tracked.
            everyone = everyone || (peer.address.family == family && peer.is_everyone() &&
                                    std::holds_alternative<Prefix>(rule.peer));
        }
        if (!any)
            return;
        const auto icmp = family == Family::V4 ? protocol::icmp : protocol::icmpv6;
        const auto ports = ports_of(rule);
        for (const auto kind : {Kind::Tcp, Kind::Udp, Kind::Icmp, Kind::Other}) {
            const bool applies =
                rule.protocol == Rule::any ||
                (CompiledRules::kind_of(static_cast<std::uint8_t>(rule.protocol)) == kind &&
                 (kind != Kind::Icmp || rule.protocol == icmp));
            if (!applies)
                continue;
            const auto way = std::to_underlying(rule.direction);
            const auto place = std::to_underlying(kind);
            if (everyone && ports.from == 0 && ports.to == 0xffff)
                compiled_->all_ports_[std::to_underlying(family)][way][place] = true;
            if (family == Family::V4)
                add_to(v4_[way][place], ports, peers, family, everyone, index);
            else
                add_to(v6_[way][place], ports, peers, family, everyone, index);
        }
    }

    static std::uint32_t bits(const Address& address, std::uint32_t /*tag*/) noexcept {
        return static_cast<std::uint32_t>(address.low);
    }
    static V6Bits bits(const Address& address, V6Bits /*tag*/) noexcept {
        return {address.high, address.low};
    }

    template <class Bits>
    static void add_to(Draft<Bits>& draft, PortRange ports, const std::vector<Prefix>& peers,
                       Family family, bool everyone, std::uint32_t index) {
        const auto local = static_cast<std::uint32_t>(draft.inputs.size());
        draft.inputs.push_back(
            {.from = ports.from, .to = ports.to, .rule = index, .everyone = everyone});
        if (everyone)
            return;
        for (const auto& peer : peers)
            if (peer.address.family == family)
                draft.ranges.push_back({.first = bits(peer.first(), Bits{}),
                                        .last = bits(peer.last(), Bits{}),
                                        .local = local});
    }

    template <class Bits>
    static void build(CompiledRules::Table<Bits>& table, Drafts<Bits>& drafts) {
        for (std::size_t way = 0; way < table.size(); ++way)
            for (std::size_t kind = 0; kind < table[way].size(); ++kind)
                table[way][kind].build(drafts[way][kind].inputs,
                                       std::move(drafts[way][kind].ranges));
    }

    const RuleSet& rules_;
    const GroupMembers& members_;
    std::shared_ptr<CompiledRules> compiled_ = std::make_shared<CompiledRules>();
    Drafts<std::uint32_t> v4_;
    Drafts<V6Bits> v6_;
    std::size_t peer_count_ = 0;
};

Result<std::shared_ptr<const CompiledRules>> compile(const RuleSet& rules,
                                                     const GroupMembers& members) {
    return RuleCompiler(rules, members).run();
}

bool name_matches(std::string_view pattern, std::string_view name) noexcept {
    if (!pattern.starts_with("*."))
        return pattern == name;
    const auto suffix = pattern.substr(1);
    return name.size() > suffix.size() && name.ends_with(suffix);
}

}  // namespace masu::net

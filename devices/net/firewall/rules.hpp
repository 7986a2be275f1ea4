// Security-group rules: as people state them (RuleSet), and compiled for lookup (CompiledRules).
// Semantics: docs/security-groups.md.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/result.hpp"
#include "devices/net/firewall/address.hpp"
#include "devices/net/firewall/packet.hpp"
#include "devices/net/firewall/verdict.hpp"

namespace masu::net {

// The members' addresses of another group, or of the same.
struct GroupReference {
    std::string group_id;  // "sg-..."
    auto operator<=>(const GroupReference&) const = default;
};
struct PrefixListReference {
    std::string list_id;  // "pl-..."
    auto operator<=>(const PrefixListReference&) const = default;
};
// Egress only: what the guest's resolver says this name's addresses are. Lower case, no final dot;
// "*.example.org" stands for every name that ends in ".example.org", not for "example.org".
struct DnsName {
    std::string name;
    auto operator<=>(const DnsName&) const = default;
};
using Peer = std::variant<Prefix, GroupReference, PrefixListReference, DnsName>;

struct Rule {
    static constexpr int any = -1;

    std::string id;  // "sgr-..."
    Direction direction = Direction::Ingress;
    int protocol = any;  // 0-255 or any
    // TCP and UDP: ports, inclusive. ICMP and ICMPv6: from is the type, to the code, or any.
    // Of all other protocols the fields mean nothing and are `any`.
    int from = any;
    int to = any;
    Peer peer;
};

// Idle times in seconds after which a flow is forgotten (ConnectionTrackingSpecification and, for
// what EC2 does not let one set, Linux's values).
struct FlowTimeouts {
    std::uint32_t tcp_established = 432'000;  // 60 to 432000
    std::uint32_t udp_stream = 180;           // 60 to 180
    std::uint32_t udp = 30;                   // 30 to 60
    bool operator==(const FlowTimeouts&) const = default;
};

// All that holds for one interface: the union of its groups' rules, what they refer to, and the
// interface's own switches.
struct RuleSet {
    static constexpr std::size_t max_rules = 1000;
    static constexpr std::size_t max_peers =
        262'144;  // addresses and prefixes, each reference spelt out

    std::vector<Rule> rules;
    std::map<std::string, std::vector<Prefix>> prefix_lists;
    FlowTimeouts timeouts;
    // Whether ICMP errors about a live flow pass without a rule.
    bool related_icmp_errors = true;
    // Whether a DNS answer may admit private addresses (RFC 1918, RFC 6598, RFC 4193). Whoever owns
    // an allowed name could otherwise point it at the host's own network.
    bool private_name_answers = false;
};

// The addresses of each group's members at this moment.
using GroupMembers = std::map<std::string, std::vector<Address>>;

class CompiledRules;

// Fails on a rule set that contradicts itself or the limits; what is returned never changes. A
// reference to a group or list that is not there matches nothing (a stale rule). Any thread;
// about a millisecond for 1,000 rules.
[[nodiscard]] Result<std::shared_ptr<const CompiledRules>> compile(const RuleSet& rules,
                                                                   const GroupMembers& members);

// True when `name` (lower case, no final dot) is what the pattern of a DnsName stands for.
[[nodiscard]] bool name_matches(std::string_view pattern, std::string_view name) noexcept;

}  // namespace masu::net

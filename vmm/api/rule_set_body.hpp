// The document that states an interface's security-group rules; docs/security-groups.md shows one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "devices/net/firewall/rules.hpp"
#include "vmm/api/json_reader.hpp"

namespace masu::api {

struct RuleSetBody {
    std::vector<std::string> groups;  // ids of the interface's groups, for people to see
    net::RuleSet rules;
    net::GroupMembers members;
};

// Types, names, addresses and sizes are checked here; what the rules mean together, by
// net::compile().
[[nodiscard]] Result<RuleSetBody> read_rule_set(JsonObject& body);

// "tcp", "udp", "icmp", "icmpv6", "-1" or a number from 0 to 255, as net::Rule::protocol.
[[nodiscard]] Result<int> parse_protocol(std::string_view text);
// The name of 6, 17, 1 and 58, else the number.
[[nodiscard]] std::string protocol_text(int protocol);

// Lower case, without a final dot; refused when it is no name that DNS could hold, or has a '*'
// anywhere but as its whole first label.
[[nodiscard]] Result<std::string> parse_dns_pattern(std::string_view text);

}  // namespace masu::api

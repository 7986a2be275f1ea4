// One rule of a security group as people write and read it.
#pragma once

#include <string>

#include "base/result.hpp"
#include "devices/net/firewall/rules.hpp"

namespace masu::cli {

// What a rule says, checked as EC2 checks it: InvalidParameterValue names what is wrong.
struct RuleText {
    bool egress = false;
    std::string protocol;
    std::string port;       // "22", "7000-8000", "all", "-1" or nothing
    std::string icmp_type;  // of ICMP; "all", "-1" or a number
    std::string icmp_code;
};
[[nodiscard]] Result<net::Rule> parse_rule(const RuleText& text, net::Peer peer);

// "tcp 22 from 0.0.0.0/0"
[[nodiscard]] std::string describe(const net::Rule& rule);

}  // namespace masu::cli

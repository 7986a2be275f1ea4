// Security-group semantics, case by case: rules, packets in their order, and what becomes of each.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/unit/devices/net/firewall/interface.hpp"

namespace masu::net {
namespace {

using fake::Interface;
using fake::second;

// Steps are separated by ';':
//   in|out PACKET = A      passes        (frames.hpp tells how a packet is written)
//   in|out PACKET = D      is dropped
//   in|out PACKET = L      goes to a service of the monitor
//   wait N                 seconds
//   rules: R, R, ...       replaces the rules ("rules:" alone removes all)
//   member sg-b A, ...     replaces a group's members
struct Vector {
    const char* name;
    const char* rules;
    const char* steps;
};

const Vector vectors[]{
    {"1 nothing is open by default", "E*", "in tcp C:40000>I:22 S = D"},
    {"2 replies to the guest's own connection pass", "E*",
     "out tcp I:40000>C:443 S = A; in tcp C:443>I:40000 SA = A; out tcp I:40000>C:443 A = A"},
    {"4 tracked: a reply needs no egress rule", "in tcp 22 C/32",
     "in tcp C:40000>I:22 S = A; out tcp I:22>C:40000 SA = A"},
    {"5 an answer to nothing", "in tcp 22 C/32", "out tcp I:22>C:40000 SA = D"},
    {"7 port ranges include both ends", "in tcp 7000-8000 any",
     "in tcp C:1>I:6999 S = D; in tcp C:1>I:7000 S = A; in tcp C:1>I:8000 S = A; "
     "in tcp C:1>I:8001 S = D"},
    {"8 TCP's rule is not UDP's", "in tcp 22 any", "in udp C:40000>I:22 = D"},
    {"10 a source port proves nothing", "in udp 53 any", "out udp I:53>C:9999 = D"},
    {"11 all protocols", "in -1 10.0.0.0/8",
     "in proto 47 P>I = A; in proto 50 P>I = A; in tcp P:9>I:1 S = A; in icmp P>I 8/0 id 1 = A"},
    {"11b but only this family and range", "in -1 10.0.0.0/8",
     "in proto 47 C>I = D; in tcp P6:9>I6:1 S = D"},
    {"13 a protocol by number", "in 47 any", "in proto 50 C>I = D; in proto 47 C>I = A"},
    {"14 echo and its reply", "in icmp 8/-1 C/32",
     "in icmp C>I 8/0 id 7 = A; out icmp I>C 0/0 id 7 = A; out icmp I>C 0/0 id 8 = D"},
    {"14b a tracked echo lets no request back", "in icmp 8/-1 C/32",
     "in icmp C>I 8/0 id 7 = A; out icmp I>C 8/0 id 7 = D"},
    {"16 ICMP type and code", "in icmp 3/4 any", "in icmp C>I 3/4 = A; in icmp C>I 3/1 = D"},
    {"17 ICMP is not ICMPv6", "in icmp -1/-1 any",
     "in icmpv6 X6>I6 128/0 id 1 = D; in icmp C>I 8/0 id 1 = A"},
    {"17b ICMPv6 by its own rule", "in icmpv6 -1/-1 any6",
     "in icmpv6 X6>I6 128/0 id 1 = A; in icmp C>I 8/0 id 1 = D; "
     "out icmpv6 I6>X6 129/0 id 1 = A"},
    {"19 only the reply to this ping", "E*",
     "out icmp I>C 8/0 id 5 = A; in icmp C>I 0/0 id 5 = A; in icmp C>I 0/0 id 6 = D; "
     "in icmp D>I 0/0 id 5 = D"},
    {"20 0.0.0.0/0 is not everybody's IPv6", "in tcp 80 any; E*", "in tcp C6:9>I6:80 S = D"},
    {"22 nor is ::/0 IPv4", "in -1 any6",
     "in tcp C6:9>I6:80 S = A; out tcp I6:80>C6:9 SA = A; out tcp I:9>C:80 S = D"},
    {"23 the union of two groups", "in tcp 22 C/32; in tcp 80 any",
     "in tcp C:9>I:22 S = A; in tcp D:9>I:80 S = A; in tcp D:9>I:22 S = D"},
    {"25 members of a group", "in tcp 3306 sg-b",
     "in tcp P:9>I:3306 S = A; in tcp Q:9>I:3306 S = D; in tcp P6:9>I6:3306 S = A"},
    {"26 who leaves the group keeps what is tracked", "in tcp 3306 sg-b",
     "in tcp P:9>I:3306 S = A; out tcp I:3306>P:9 SA = A; in tcp P:9>I:3306 A = A; "
     "member sg-b Q; in tcp P:10>I:3306 S = D; in tcp P:9>I:3306 A = A; "
     "in tcp Q:9>I:3306 S = A"},
    {"28 a member's public address is not its own", "in tcp 3306 sg-b",
     "in tcp Pub:9>I:3306 S = D"},
    {"29 the default group: all from itself", "in -1 sg-g; E*",
     "in tcp Q:9>I:5 S = D; in tcp S:9>I:5 S = A; in proto 47 S>I = A"},
    {"31 egress to a group", "out tcp 443 sg-b",
     "out tcp I:9>P:443 S = A; out tcp I:9>Q:443 S = D; out tcp I:9>P:80 S = D"},
    {"31b a group that is gone matches nothing", "in -1 sg-gone", "in tcp P:9>I:5 S = D"},
    {"32 a tracked flow outlives its rule", "in tcp 22 C/32; E*",
     "in tcp C:9>I:22 S = A; out tcp I:22>C:9 SA = A; in tcp C:9>I:22 A = A; rules: E*; "
     "in tcp C:9>I:22 A = A; in tcp C:10>I:22 S = D"},
    {"33 an untracked flow does not", "in tcp 22 any; E*",
     "in tcp C:9>I:22 S = A; out tcp I:22>C:9 SA = A; in tcp C:9>I:22 A = A; rules: E*; "
     "in tcp C:9>I:22 A = D"},
    {"34 narrowed to another host", "in tcp 22 any; E*",
     "in tcp C:9>I:22 S = A; out tcp I:22>C:9 SA = A; rules: in tcp 22 D/32, E*; "
     "in tcp C:9>I:22 A = D"},
    {"35 open, but tracked for want of egress", "in tcp 22 any",
     "in tcp C:9>I:22 S = A; out tcp I:22>C:9 SA = A; in tcp C:9>I:22 A = A; rules:; "
     "in tcp C:9>I:22 A = A"},
    {"36 no group's rule of the other family makes a flow untracked", "in tcp 22 any; out -1 any6",
     "in tcp C:9>I:22 S = A; out tcp I:22>C:9 SA = A; in tcp C:9>I:22 A = A; rules:; "
     "in tcp C:9>I:22 A = A"},
    {"37 the guest's connection is tracked: ingress is not open on all ports", "in tcp 80 any; E*",
     "out tcp I:40000>C:443 S = A; in tcp C:443>I:40000 SA = A; out tcp I:40000>C:443 A = A; "
     "rules: in tcp 80 any; in tcp C:443>I:40000 A = A; out tcp I:40000>C:443 A = A"},
    {"38 untracked both ways, then egress goes", "in -1 any; E*",
     "out tcp I:40000>C:443 S = A; in tcp C:443>I:40000 SA = A; rules: in -1 any; "
     "out tcp I:40000>C:443 A = D; in tcp C:443>I:40000 A = A; out tcp I:40000>C:443 A = A"},
    {"39 the reply of an untracked flow begins no tracked one", "in tcp 80 any; E*",
     "in tcp C:9>I:80 S = A; out tcp I:80>C:9 SA = A; out tcp I:80>C:9 A = A; rules: E*; "
     "in tcp C:9>I:80 A = D"},
    {"39b nor does what the guest still sends when the rule is gone", "in tcp 80 any; E*",
     "in tcp C:9>I:80 S = A; out tcp I:80>C:9 SA = A; rules: E*; out tcp I:80>C:9 A = A; "
     "in tcp C:9>I:80 A = D; rules: in tcp 22 any, E*; out tcp I:80>C:9 A = A; "
     "in tcp C:9>I:80 A = D; rules: in tcp 80 any, E*; in tcp C:9>I:80 A = A"},
    {"39c but a connection of its own from there is one", "in tcp 80 any6; E*",
     "rules: E*; out tcp I6:80>C6:9 S = A; in tcp C6:9>I6:80 SA = A; out tcp I6:80>C6:9 A = A"},
    {"39d a tracked flow is picked up where none was untracked", "in tcp 80 any; E*",
     "rules: E*; out tcp I:81>C:9 A = A; in tcp C:9>I:81 A = A; out tcp I6:80>C6:9 A = A; "
     "in tcp C6:9>I6:80 A = A"},
    {"41a UDP, one way, within 30 s", "E*",
     "out udp I:5000>C:53 = A; wait 29; in udp C:53>I:5000 = A"},
    {"41b UDP, one way, after 30 s", "E*",
     "out udp I:5000>C:53 = A; wait 31; in udp C:53>I:5000 = D"},
    {"42a one request and reply: still 30 s", "E*",
     "out udp I:5000>C:53 = A; in udp C:53>I:5000 = A; wait 31; in udp C:53>I:5000 = D"},
    {"42b a second request and reply make a stream: 180 s", "E*",
     "out udp I:5000>C:53 = A; in udp C:53>I:5000 = A; out udp I:5000>C:53 = A; "
     "in udp C:53>I:5000 = A; wait 179; in udp C:53>I:5000 = A; wait 181; "
     "in udp C:53>I:5000 = D"},
    {"43a GRE for 600 s", "E*",
     "out proto 47 I>C = A; wait 599; in proto 47 C>I = A; in proto 47 D>I = D"},
    {"43b GRE no longer", "E*", "out proto 47 I>C = A; wait 601; in proto 47 C>I = D"},
    {"44 a reply from another port or host", "E*",
     "out udp I:5000>C:53 = A; in udp C:54>I:5000 = D; in udp D:53>I:5000 = D"},
    {"45 an ICMP error about a live flow (related)", "E*",
     "out tcp I:40000>C:443 S = A; in icmp C>I 3/4 about tcp I:40000>C:443 S = A"},
    {"46 about another flow; and from a router on the way", "E*",
     "out tcp I:40000>C:443 S = A; in icmp C>I 3/4 about tcp I:40001>C:443 S = D; "
     "in icmp R>I 3/4 about tcp I:40000>C:443 S = A; "
     "in icmp R>I 3/4 about tcp C:443>I:40000 S = D"},
    {"46b about somebody else's flow", "E*",
     "out tcp I:40000>C:443 S = A; in icmp R>I 3/4 about tcp Q:40000>C:443 S = D"},
    {"46c IPv6, too big", "E*",
     "out udp I6:5000>C6:53 = A; in icmpv6 X6>I6 2/0 about udp I6:5000>C6:53 = A; "
     "in icmpv6 X6>I6 2/0 about udp I6:5001>C6:53 = D"},
    {"47 with a rule it passes anyway", "E*; in icmp 3/4 any",
     "in icmp C>I 3/4 about tcp I:40001>C:443 S = A"},
    {"48 the guest's error about a tracked inbound flow", "in udp 500 C/32",
     "in udp C:9>I:500 = A; out icmp I>C 3/3 about udp C:9>I:500 = A; "
     "out icmp I>C 3/3 about udp C:10>I:500 = D"},
    {"48b about an untracked flow, of which nothing is known but its rule", "in tcp 80 any; E*",
     "in icmp R>I 3/4 about tcp I:80>C:9 A = A; in icmp R>I 3/4 about tcp I:81>C:9 A = D; "
     "in icmp R>I 3/4 about tcp Q:80>C:9 A = D; in icmp R>I 5/1 about tcp I:80>C:9 A = D; "
     "rules: E*; in icmp R>I 3/4 about tcp I:80>C:9 A = D"},
    {"48c IPv6, too big", "in tcp 80 any6; E*",
     "in icmpv6 X6>I6 2/0 about tcp I6:80>C6:9 A = A; "
     "in icmpv6 X6>I6 2/0 about tcp I6:81>C6:9 A = D"},
    {"49 a redirect is no related error", "in tcp 22 C/32",
     "in tcp C:9>I:22 S = A; in icmp R>I 5/1 about tcp I:22>C:9 SA = D"},
    {"50 fragments follow the first", "in udp 500 any",
     "in udp C:9>I:500 frag 7 0 + = A; in udp C:9>I:500 frag 7 24 + = A; "
     "in udp C:9>I:500 frag 7 48 - = A"},
    {"50b out of order, after the first", "in udp 500 any",
     "in udp C:9>I:500 frag 7 0 + = A; in udp C:9>I:500 frag 7 48 - = A; "
     "in udp C:9>I:500 frag 7 24 + = A"},
    {"50c IPv6", "in udp 500 any6",
     "in udp C6:9>I6:500 frag 7 0 + = A; in udp C6:9>I6:500 frag 7 24 - = A"},
    {"51a no first fragment", "in udp 500 any",
     "in udp C:9>I:500 frag 7 24 + = D; in udp C:9>I:501 frag 8 0 + = D; "
     "in udp C:9>I:501 frag 8 24 - = D"},
    {"51b overlap ends the datagram", "in udp 500 any",
     "in udp C:9>I:500 frag 7 0 + = A; in udp C:9>I:500 frag 7 16 + = D; "
     "in udp C:9>I:500 frag 7 24 - = D"},
    {"51c after 30 s", "in udp 500 any",
     "in udp C:9>I:500 frag 7 0 + = A; wait 31; in udp C:9>I:500 frag 7 24 - = D"},
    {"51d an identification may come round again", "in udp 500 any",
     "in udp C:9>I:500 frag 7 0 + = A; in udp C:9>I:500 frag 7 24 - = A; "
     "in udp C:9>I:500 frag 7 0 + = A; in udp C:9>I:500 frag 7 24 - = A"},
    {"51e a last fragment before the end of another", "in udp 500 any",
     "in udp C:9>I:500 frag 7 0 + = A; in udp C:9>I:500 frag 7 48 + = A; "
     "in udp C:9>I:500 frag 7 24 - = D"},
    {"52 DHCP is never filtered", "",
     "out udp 0.0.0.0:68>all:67 = A; in udp DNS:67>I:68 = A; in udp DNS:67>all:68 = A"},
    {"52b but is no way past the rules", "",
     "out udp I:68>C:67 = D; in udp C:67>I:68 = D; out udp I:68>C:67 = D; "
     "in udp DNS:67>I:68 = A; out udp I:68>DNS:67 = A; out udp I:68>P:67 = D"},
    {"55 the resolver is never filtered, others are", "",
     "out udp I:5000>DNS:53 = A; in udp DNS:53>I:5000 = A; out tcp I:5000>DNS:53 S = A; "
     "out udp I:5000>GOOGLE:53 = D; out udp I:5000>DNS:54 = D; in udp DNS:53>I:5001 = D"},
    {"56 time likewise", "",
     "out udp I:5000>NTP:123 = A; in udp NTP:123>I:5000 = A; out udp I:5000>C:123 = D"},
    {"56b the metadata service is the monitor's", "",
     "out tcp I:5000>IMDS:80 S = L; in tcp IMDS:80>I:5000 SA = D"},
    {"57 a forged source", "E*", "out tcp 10.0.0.99:5>C:443 S = D; out tcp Q:5>C:443 S = D"},
    {"59 not addressed to the guest", "in -1 any", "in tcp C:5>10.0.0.99:80 S = D"},
    {"59b forged as the guest itself", "in -1 any", "in tcp I:80>I:80 S = D"},
    {"60 multicast and broadcast are not carried", "in -1 any; E*",
     "out udp I:5>224.0.0.251:5353 = D; out udp I:5>all:9 = D; in udp C:5>224.0.0.1:5 = D; "
     "in udp 127.0.0.1:5>I:5 = D; in udp 0.0.0.0:5>I:5 = D"},
    {"61 after RST the ports may be used again", "in tcp 22 C/32",
     "in tcp C:9>I:22 S = A; out tcp I:22>C:9 SA ack 1001 = A; "
     "in tcp C:9>I:22 A seq 1001 ack 1001 = A; in tcp C:9>I:22 RA seq 1001 = A; "
     "in tcp C:9>I:22 A = A; in tcp C:9>I:22 S = A; wait 11; out tcp I:22>C:9 SA = A"},
    {"61b after RST a flow whose rule is gone ends", "in tcp 22 C/32",
     "in tcp C:9>I:22 S = A; out tcp I:22>C:9 SA ack 1001 = A; "
     "in tcp C:9>I:22 A seq 1001 ack 1001 = A; rules:; in tcp C:9>I:22 R seq 1001 = A; "
     "in tcp C:9>I:22 S = D"},
    {"61c a forged RST does not end a flow", "in tcp 22 C/32",
     "in tcp C:9>I:22 S = A; out tcp I:22>C:9 SA ack 1001 = A; "
     "in tcp C:9>I:22 A seq 1001 ack 1001 = A; rules:; in tcp C:9>I:22 R seq 77777 = A; "
     "wait 200; in tcp C:9>I:22 A seq 1001 ack 1001 = A; wait 1000; "
     "in tcp C:9>I:22 A seq 1001 ack 1001 = A"},
    {"62 picked up in mid-stream", "in tcp 22 C/32",
     "in tcp C:9>I:22 A = A; out tcp I:22>C:9 A = A; rules:; wait 1000; in tcp C:9>I:22 A = A"},
    {"63 a closed connection is forgotten after 120 s", "in tcp 22 C/32",
     "in tcp C:9>I:22 S = A; out tcp I:22>C:9 SA = A; in tcp C:9>I:22 A = A; rules:; "
     "in tcp C:9>I:22 FA = A; out tcp I:22>C:9 A = A; out tcp I:22>C:9 FA = A; "
     "in tcp C:9>I:22 A = A; wait 119; out tcp I:22>C:9 A = A; wait 121; "
     "in tcp C:9>I:22 A = D"},
    {"69 impossible TCP flags", "in -1 any",
     "in tcp C:9>I:22 SF = D; in tcp C:9>I:22 P = D; in tcp C:9>I:22 SR = D"},
};

void run_step(Interface& interface, const std::string& step) {
    if (step.starts_with("wait ")) {
        interface.now += std::stoull(step.substr(5)) * second;
    } else if (step.starts_with("rules:")) {
        auto rules = step.substr(6);
        std::ranges::replace(rules, ',', ';');
        interface.set_rules(rules);
    } else if (step.starts_with("member ")) {
        std::istringstream words(step.substr(7));
        std::string group;
        words >> group;
        interface.members[group].clear();
        for (std::string host; words >> host;)
            interface.members[group].push_back(fake::address(fake::hosts().find(host)->second));
        interface.apply();
    } else {
        const auto equals = step.find(" = ");
        REQUIRE(equals != std::string::npos);
        const auto verdict = interface.judge(step.substr(0, equals));
        const auto expected = step.substr(equals + 3);
        const auto got = verdict.action == Action::Pass    ? "A"
                         : verdict.action == Action::Local ? "L"
                                                           : "D";
        CHECK_MESSAGE(got == expected, step, ": ", to_string(verdict.reason));
    }
}

}  // namespace

TEST_CASE("security-group vectors") {
    for (const auto& vector : vectors) {
        INFO(vector.name);
        Interface interface;
        interface.set_rules(vector.rules);
        for (const auto& step : fake::split(vector.steps, ';'))
            run_step(interface, step);
    }
}

TEST_CASE("40: the idle time of an established connection is the interface's own") {
    for (const auto& [seconds, expected] : {std::pair(59, true), std::pair(61, false)}) {
        Interface interface;
        interface.rule_set.timeouts.tcp_established = 60;
        interface.set_rules("in tcp 22 C/32");
        CHECK(interface.passes("in tcp C:9>I:22 S"));
        CHECK(interface.passes("out tcp I:22>C:9 SA"));
        CHECK(interface.passes("in tcp C:9>I:22 A"));
        interface.set_rules("");
        interface.now += seconds * second;
        CHECK(interface.passes("in tcp C:9>I:22 A") == expected);
    }
}

TEST_CASE("45-47 strict: an ICMP error needs a rule") {
    Interface interface;
    interface.rule_set.related_icmp_errors = false;
    interface.set_rules("E*");
    CHECK(interface.passes("out tcp I:40000>C:443 S"));
    CHECK_FALSE(interface.passes("in icmp C>I 3/4 about tcp I:40000>C:443 S"));
    CHECK_FALSE(interface.passes("in icmp R>I 3/4 about tcp I:40000>C:443 S"));
    interface.set_rules("E*; in icmp 3/4 any");
    CHECK(interface.passes("in icmp R>I 3/4 about tcp I:40000>C:443 S"));
}

TEST_CASE("58: with the check off, a guest may forward") {
    Interface interface;
    interface.config.source_dest_check = false;
    interface.firewall->replace_config(interface.config);
    interface.set_rules("in -1 any; E*");
    CHECK(interface.passes("out tcp 10.0.0.99:5>C:443 S"));
    CHECK(interface.passes("in tcp C:443>10.0.0.99:5 SA"));
    // Still not in the name of the monitor's own services, nor of nobody.
    CHECK_FALSE(interface.passes("out tcp IMDS:80>C:443 S"));
    CHECK_FALSE(interface.passes("out tcp 127.0.0.1:80>C:443 S"));
    CHECK(interface.judge("out tcp Q:80>IMDS:80 S").reason == Reason::SourceCheck);
}

TEST_CASE("26: a prefix list applies as it stands") {
    Interface interface;
    interface.rule_set.prefix_lists["pl-a"] = {*parse_cidr("198.51.100.0/24"),
                                               *parse_cidr("2001:db8:c::/48")};
    interface.set_rules("in tcp 22 pl-a");
    CHECK(interface.passes("in tcp D:9>I:22 S"));
    CHECK(interface.passes("in tcp C6:9>I6:22 S"));
    CHECK_FALSE(interface.passes("in tcp C:9>I:22 S"));
    interface.rule_set.prefix_lists["pl-a"] = {*parse_cidr("203.0.113.0/24")};
    interface.apply();
    CHECK(interface.passes("in tcp C:9>I:22 S"));
    CHECK_FALSE(interface.passes("in tcp D:10>I:22 S"));
}

TEST_CASE("a monitor without rules passes nothing, not even ARP and DHCP") {
    Interface interface;
    CHECK(interface.judge("out udp 0.0.0.0:68>all:67").reason == Reason::NoRules);
    interface.set_rules("in -1 any; E*");
    CHECK(interface.passes("in tcp C:9>I:22 S"));
    interface.firewall->replace_rules(nullptr);
    CHECK(interface.judge("in tcp C:9>I:22 A").reason == Reason::NoRules);
}

}  // namespace masu::net

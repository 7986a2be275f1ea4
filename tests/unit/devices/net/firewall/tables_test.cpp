// The flow table under load, its limits, saved state, and compiled rules at their size.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>

#include "devices/net/firewall/flow_table.hpp"
#include "devices/net/firewall/siphash.hpp"
#include "devices/net/flow_log.hpp"
#include "tests/unit/devices/net/firewall/interface.hpp"

namespace masu::net {
namespace {

using namespace fake;

FlowKey<std::uint32_t> key(std::uint32_t n) {
    return {.local = 1, .remote = n, .local_port = 2, .remote_port = 3, .protocol = 6};
}

}  // namespace

TEST_CASE("SipHash-2-4 gives the published values") {
    // Key 00..0f, input 00..0e and its first 0 and 8 bytes (Aumasson, Bernstein 2012, appendix A).
    const SipKey sip_key{0x0706050403020100U, 0x0f0e0d0c0b0a0908U};
    CHECK(SipHash<2, 4>(sip_key).finish(0) == 0x726fdb47dd0e0e31U);
    CHECK(SipHash<2, 4>(sip_key).word(0x0706050403020100U).finish(8ULL << 56) ==
          0x93f5f5799a932462U);
    CHECK(SipHash<2, 4>(sip_key).word(0x0706050403020100U).finish(0x0f0e0d0c0b0a0908U) ==
          0xa129ca6149be45e5U);
}

TEST_CASE("the flow table holds what a map holds, through growth, erasure and expiry") {
    FlowTable<std::uint32_t> table({1, 2});
    std::map<std::uint32_t, Nanoseconds> expected;
    std::mt19937 random(1);
    Nanoseconds now = 1;
    for (int step = 0; step < 60'000; ++step) {
        const auto n = static_cast<std::uint32_t>(random() % 4000);
        now += random() % 3;
        const auto hash = table.hash(key(n));
        auto* found = table.find(key(n), hash, now);
        const auto known = expected.find(n);
        const bool live = known != expected.end() && known->second > now;
        REQUIRE((found != nullptr) == live);
        if (found != nullptr) {
            REQUIRE(found->expires == known->second);
            if (random() % 4 == 0) {
                table.erase(found);
                expected.erase(known);
            }
            continue;
        }
        auto* made = table.insert(key(n), hash, now);
        REQUIRE(made != nullptr);
        made->state = FlowState::Other;
        made->expires = now + 1 + random() % 20'000;
        expected[n] = made->expires;
    }
    std::size_t live = 0;
    table.for_each_live(now, [&](const auto& flow) {
        ++live;
        CHECK(expected.at(flow.remote) == flow.expires);
    });
    CHECK(live == static_cast<std::size_t>(std::ranges::count_if(
                      expected, [now](const auto& entry) { return entry.second > now; })));
    for (int i = 0; i < 100; ++i)
        table.sweep(1024, now + 30'000);
    CHECK(table.size() == 0);
}

TEST_CASE("a full table: no new flows, but old and untracked ones go on") {
    Interface interface({.max_flows = 100});
    interface.set_rules("in tcp 22 C/32; in tcp 80 any; out -1 any");
    for (int port = 0; port < 100; ++port)
        CHECK(interface.passes(fmt::format("in tcp C:{}>I:22 S", 1000 + port)));
    CHECK(interface.firewall->counters().conntrack_allowance_available == 0);
    CHECK(interface.judge("in tcp C:5000>I:22 S").reason == Reason::TableFull);
    CHECK(interface.judge("out udp I:5000>C:53").reason == Reason::TableFull);
    CHECK(interface.judge("out tcp I:22>C:1000 SA").reason == Reason::TrackedFlow);
    CHECK(interface.judge("in tcp C:5000>I:80 S").reason == Reason::UntrackedRule);
    CHECK(interface.judge("out udp I:5000>DNS:53").reason == Reason::ExemptService);
    CHECK(interface.firewall->counters().conntrack_allowance_exceeded == 2);
    interface.now += 121 * second;  // the handshakes have timed out
    for (int i = 0; i < 10; ++i)
        interface.firewall->expire(interface.now);
    CHECK(interface.judge("in tcp C:5000>I:22 S").reason == Reason::NewFlow);
}

TEST_CASE("rules count what they admit, also across a change of rules") {
    Interface interface;
    interface.set_rules("in tcp 22 C/32; in tcp 80 any");
    CHECK(interface.passes("in tcp C:9>I:22 S"));
    CHECK(interface.passes("in tcp C:9>I:22 S"));
    interface.set_rules("in tcp 80 any; in tcp 22 C/32; E*");
    CHECK(interface.passes("in tcp C:9>I:80 S"));
    CHECK(interface.passes("in tcp C:9>I:80 A"));
    const auto counts = interface.firewall->rule_counts();
    CHECK(counts[0].packets == 2);
    CHECK(counts[1].packets == 1);
    CHECK(counts[1].bytes == 14 + 20 + 24);
    const auto counters = interface.firewall->counters();
    CHECK(counters.packets[std::to_underlying(Reason::NewFlow)] == 1);
    CHECK(counters.packets[std::to_underlying(Reason::TrackedFlow)] == 1);
    CHECK(counters.packets[std::to_underlying(Reason::UntrackedRule)] == 2);
}

TEST_CASE("packets that are prepared together get the verdicts they get one by one") {
    Interface one;
    Interface many;
    one.set_rules("in tcp 22 C/32; E*");
    many.set_rules("in tcp 22 C/32; E*");
    std::vector<Bytes> frames;
    for (const auto* line : {"tcp C:9>I:22 S", "tcp C:9>I:22 A", "tcp D:9>I:22 S", "udp C:1>I:1",
                             "tcp C:9>I:22 RA", "tcp C:10>I:22 S"})
        frames.push_back(
            ethernet(gateway_mac, guest_mac, 0x0800, PacketText(line, hosts()).read()));
    std::vector<Frame> given;
    for (const auto& frame : frames)
        given.push_back({frame, static_cast<std::uint32_t>(frame.size())});
    for (std::size_t i = 0; i < given.size(); ++i)
        many.firewall->prepare(i, Direction::Ingress, given[i]);
    CHECK(many.firewall->counters().packets == FirewallCounters().packets);
    for (std::size_t i = 0; i < given.size(); ++i) {
        const auto alone = one.firewall->judge(Direction::Ingress, given[i], one.now);
        const auto together =
            many.firewall->judge_prepared(i, Direction::Ingress, given[i], many.now);
        CHECK(alone.action == together.action);
        CHECK(alone.reason == together.reason);
        CHECK(many.firewall->last_packet()->tuple == one.firewall->last_packet()->tuple);
    }
}

TEST_CASE("a table that empties gives its memory back, and goes on working") {
    Interface interface;
    interface.set_rules("in tcp 22 10.0.0.0/8; E*");
    const auto syn = [](int n) { return fmt::format("in tcp P:{}>I:22 S", 1000 + n); };
    for (int n = 0; n < 10'000; ++n)
        CHECK(interface.passes(syn(n)));
    const auto full = interface.firewall->flow_memory();
    CHECK(full >= 20'000 * sizeof(Flow<std::uint32_t>));
    interface.now += 100 * second;
    for (int n = 0; n < 100; ++n)
        CHECK(interface.passes(syn(n)));  // a SYN again: these live on
    interface.now += 100 * second;
    for (int i = 0; i < 20; ++i)
        interface.firewall->expire(interface.now);
    CHECK(interface.firewall->flow_count() == 100);
    CHECK(interface.firewall->flow_memory() < full / 16);
    for (int n = 0; n < 100; ++n)
        CHECK(interface.judge(fmt::format("out tcp I:22>P:{} SA", 1000 + n)).reason ==
              Reason::TrackedFlow);
    interface.now += 61 * second;
    for (int i = 0; i < 3; ++i)
        interface.firewall->expire(interface.now);
    CHECK(interface.firewall->flow_count() == 0);
    CHECK(interface.firewall->flow_memory() == 0);
    CHECK(interface.judge(syn(0)).reason == Reason::NewFlow);
}

TEST_CASE("saved flows go on where they stood; broken state is refused whole") {
    Interface before;
    before.set_rules("in tcp 22 C/32; E*; out tcp 443-443 name:x.org");
    CHECK(before.passes("in tcp C:9>I:22 S"));
    CHECK(before.passes("out tcp I:22>C:9 SA"));
    CHECK(before.passes("out udp I6:5000>C6:53"));
    const auto state = before.firewall->save(before.now);

    Interface after;
    after.now = 5 * second;
    after.set_rules("");
    REQUIRE(after.firewall->load(state, after.now));
    CHECK(after.firewall->flow_count() == 2);
    after.now += 29 * second;
    CHECK(after.passes("in tcp C:9>I:22 A"));
    CHECK(after.passes("in udp C6:53>I6:5000"));
    after.now += 31 * second;
    CHECK_FALSE(after.passes("in udp C6:53>I6:5000"));

    Interface other;
    other.set_rules("");
    for (std::size_t size = 0; size < state.size(); ++size)
        CHECK_FALSE(other.firewall->load(std::span(state).first(size), 1));
    auto longer = state;
    longer.push_back({});
    CHECK_FALSE(other.firewall->load(longer, 1));
    auto wrong = state;
    wrong[16 + 13] = std::byte{99};  // the state of the first flow
    CHECK_FALSE(other.firewall->load(wrong, 1));
    CHECK(other.firewall->flow_count() == 0);
}

TEST_CASE("rule sets that contradict themselves are refused") {
    const auto error = [](const Rule& rule) {
        RuleSet set;
        set.rules.push_back(rule);
        const auto compiled = compile(set, {});
        return compiled ? std::string() : compiled.error().message;
    };
    const auto everyone = *parse_cidr("0.0.0.0/0");
    CHECK(error({.id = "a", .protocol = 6, .from = 65535, .to = 1, .peer = everyone}) != "");
    CHECK(error({.id = "a", .protocol = 6, .peer = everyone}) != "");
    CHECK(error({.id = "a", .protocol = 1, .from = -1, .to = 4, .peer = everyone}) != "");
    CHECK(error({.id = "a", .protocol = 256, .peer = everyone}) != "");
    CHECK(error({.id = "a", .protocol = 6, .from = 1, .to = 2, .peer = DnsName{"x.org"}}) != "");
    CHECK(error({.id = "a", .protocol = 47, .from = 7, .to = 3, .peer = everyone}) == "");
    RuleSet many;
    many.rules.resize(1001, {.id = "a", .peer = everyone});
    CHECK_FALSE(compile(many, {}));
    RuleSet slow;
    slow.timeouts.tcp_established = 59;
    CHECK_FALSE(compile(slow, {}));
}

TEST_CASE("flow log: one record a flow, direction and verdict; services are left out") {
    FlowLog log({1, 2});
    Interface interface;
    interface.firewall->set_flow_log(&log);
    interface.set_rules("in icmp 8/-1 C/32");
    CHECK(interface.passes("in icmp C>I 8/0 id 1"));
    CHECK(interface.passes("out icmp I>C 0/0 id 1"));
    CHECK(interface.passes("in icmp C>I 8/0 id 2"));
    CHECK_FALSE(interface.passes("in tcp C:9>I:22 S"));
    CHECK_FALSE(interface.passes("in tcp C:9>I:22 FA"));
    CHECK(interface.passes("out udp I:5000>DNS:53"));
    CHECK(interface.passes("out udp 0.0.0.0:68>all:67"));
    const auto window = log.take();
    REQUIRE(window.records.size() == 3);
    CHECK(window.records[0].accepted);
    CHECK(window.records[0].packets == 2);
    CHECK(window.records[0].tuple.destination_port == 0);
    CHECK(window.records[1].direction == Direction::Egress);
    CHECK_FALSE(window.records[2].accepted);
    CHECK(window.records[2].tcp_flags == (tcp_flag::syn | tcp_flag::fin));
    CHECK(window.records[2].bytes == 2 * 44);
    CHECK(log.take().records.empty());
}

TEST_CASE("flow log: what is too much for a window is counted as skipped") {
    FlowLog log({1, 2});
    for (std::uint32_t i = 0; i < FlowLog::max_records + 5; ++i)
        log.record(Direction::Ingress, {Address::v4(i), Address::v4(1), 6, 1, 2}, 40, 2,
                   {.action = Action::Drop, .reason = Reason::NoRule}, i);
    const auto window = log.take();
    CHECK(window.records.size() == FlowLog::max_records);
    CHECK(window.skipped == 5);
}

}  // namespace masu::net

// The firewall of one network interface: (rules, flows, frame, time) -> verdict.
//
//   auto firewall = TRY(Firewall::create(config, limits));
//   firewall->replace_rules(TRY(compile(rule_set, members)));
//   switch (firewall->judge(Direction::Egress, {copy, length}, clock.now()).action) ...
//
// Until the first replace_rules, and after replace_rules(nullptr), nothing passes at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/result.hpp"
#include "devices/net/firewall/address.hpp"
#include "devices/net/firewall/packet.hpp"
#include "devices/net/firewall/rules.hpp"
#include "devices/net/firewall/verdict.hpp"

namespace masu::net {

class FlowLog;  // devices/net/flow_log.hpp

struct InterfaceConfig {
    MacAddress mac{};
    // The interface's own addresses, primary first. Beside them the guest may use the link-local
    // address of its MAC, and up to two further fe80::/64 addresses that are learned from what it
    // announces and that nobody in `local` or `neighbors` has. With neither addresses nor
    // delegated prefixes they are unknown, and the guest may have any that is not in `local`.
    std::vector<Address> addresses;
    std::vector<Prefix> delegated;  // further sources and destinations of its own
    // Off for a guest that routes or translates. The MAC is always checked.
    bool source_dest_check = true;

    // Addresses that the monitor answers itself, and the backend must never see or claim to be:
    // the metadata service, the gateway, a DNS forwarder. Egress to them is Action::Local.
    std::vector<Address> local;
    // Link-local addresses that others on the link have, such as the gateway.
    std::vector<Address> neighbors;
    // Never filtered, on the wire: DNS (port 53) and time (UDP 123) at these addresses.
    std::vector<Address> resolvers;
    std::vector<Address> time_servers;
    // The guest's other DNS servers. Ordinary traffic, until there are name rules: then they are
    // as the resolvers, and their answers are read.
    std::vector<Address> name_servers;
    // Whether DHCP and DHCPv6 pass to and from the backend. With false, the guest's own requests
    // are Action::Local and nothing of the kind comes in.
    bool dhcp_on_wire = true;
    // Who may be a DHCP server on the wire; empty: whoever has a private address (RFC 1918, 6598,
    // 3927), so that no stranger gets past the rules by way of DHCP's ports.
    std::vector<Address> dhcp_servers;
    // Likewise router advertisements and solicitations.
    bool router_discovery_on_wire = true;
};

struct FirewallLimits {
    std::uint32_t max_flows = 131'072;  // about 64 bytes each, 128 with IPv6
    // Of admitted (address, name) pairs.
    std::uint32_t max_names = 4096;
};

struct FirewallCounters {
    std::array<std::uint64_t, reason_count> packets{};
    std::array<std::uint64_t, reason_count> bytes{};
    // EC2's words.
    std::uint64_t conntrack_allowance_exceeded = 0;
    std::uint64_t conntrack_allowance_available = 0;
};

struct RuleCount {
    std::string rule_id;
    // Of the packets that this rule admitted: each of an untracked flow, the first of a tracked
    // one.
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
};

// One owning thread (the interface's). Nothing on the packet path locks, throws, or scans more
// than a fixed number of entries.
class Firewall {
  public:
    // The seed of the hash tables comes from getrandom(2); fails when the host refuses it.
    [[nodiscard]] static Result<std::unique_ptr<Firewall>> create(InterfaceConfig config,
                                                                  const FirewallLimits& limits);
    ~Firewall();

    // `now` is monotonic; an earlier one counts as the latest seen.
    [[nodiscard]] Verdict judge(Direction direction, const Frame& frame, Nanoseconds now) noexcept;

    // The same in two steps, for a queue's batch: preparing all its frames before the first is
    // judged overlaps their misses of the flow table. prepare() only reads the frame: nothing is
    // decided, counted or changed, and it need not be followed by a verdict. judge_prepared() is
    // given the same frame. `place` is less than max_burst.
    static constexpr std::size_t max_burst = 16;
    void prepare(std::size_t place, Direction direction, const Frame& frame) noexcept;
    [[nodiscard]] Verdict judge_prepared(std::size_t place, Direction direction, const Frame& frame,
                                         Nanoseconds now) noexcept;

    // After Action::Answer: the frame for the guest, until the next judge().
    [[nodiscard]] std::span<const std::byte> answer() const noexcept;

    // What the last frame judged was parsed into; null when it was no proper packet. For checks of
    // the offload fields, see Packet::transport_offset.
    [[nodiscard]] const Packet* last_packet() const noexcept;

    // Takes effect between two packets, whole. Tracked flows stay, untracked ones are judged by the
    // new rules from their next packet on. Counts of rules with the same id go on. The old set is
    // returned, so that its owner may free it elsewhere.
    std::shared_ptr<const CompiledRules> replace_rules(std::shared_ptr<const CompiledRules> rules);

    // New addresses, checks or services, from the next packet on.
    void replace_config(InterfaceConfig config);

    // Every verdict is also told to `log` (borrowed, may be null).
    void set_flow_log(FlowLog* log) noexcept;

    // Forgets expired flows and gives back the memory of a table that is nearly empty: a fixed
    // amount of work, which once a second takes half a minute at most to go round the table. The
    // packet path takes no expired flow for a live one, but drops only those that it meets.
    void expire(Nanoseconds now) noexcept;

    [[nodiscard]] FirewallCounters counters() const;
    [[nodiscard]] std::vector<RuleCount> rule_counts() const;
    [[nodiscard]] std::size_t flow_count() const noexcept;
    [[nodiscard]] std::size_t flow_memory() const noexcept;  // bytes of the flow tables

    // Flows and admitted names with the time they have left. load() checks everything and adds the
    // flows to those there are; on an error nothing was added. The rules are not part of it.
    [[nodiscard]] std::vector<std::byte> save(Nanoseconds now) const;
    [[nodiscard]] Result<> load(std::span<const std::byte> state, Nanoseconds now);

  private:
    explicit Firewall(std::unique_ptr<class FirewallState> state);
    std::unique_ptr<FirewallState> state_;
};

}  // namespace masu::net

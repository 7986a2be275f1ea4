// The inside of a Firewall: its tables, and the order in which a packet is asked its questions.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "devices/net/firewall/firewall.hpp"
#include "devices/net/firewall/flow_table.hpp"
#include "devices/net/firewall/fragment_cache.hpp"
#include "devices/net/firewall/name_table.hpp"

namespace masu::net {

class FirewallState {
  public:
    static constexpr std::size_t max_learned = 2;
    // Flows to never-filtered services may exceed the limit by so many.
    static constexpr std::uint32_t exempt_reserve = 1024;

    // One frame on its way to a verdict.
    struct Prepared {
        Packet packet;
        std::optional<Reason> trouble;  // of parsing
        bool hashed = false;            // the key of its flow, whichever the family
        std::uint64_t hash = 0;
        FlowKey<std::uint32_t> key4{};
        FlowKey<V6Bits> key6{};
    };

    FirewallState(InterfaceConfig interface, const FirewallLimits& limit,
                  const std::array<SipKey, 4>& keys);

    void prepare(Direction direction, const Frame& frame, Prepared& prepared) const noexcept;
    void prefetch(const Prepared& prepared) const noexcept;
    [[nodiscard]] Verdict judge(Direction direction, const Frame& frame,
                                Prepared& prepared) noexcept;

    // neighbors.cpp
    [[nodiscard]] Verdict judge_arp(Direction direction, const Packet& packet) noexcept;
    [[nodiscard]] std::optional<Verdict> judge_link_control(Direction direction,
                                                            const Packet& packet) noexcept;
    // services.cpp
    [[nodiscard]] std::optional<Verdict> judge_dhcp(Direction direction,
                                                    const Packet& packet) noexcept;
    [[nodiscard]] bool is_dns(Direction direction, const Tuple& tuple) const noexcept;
    [[nodiscard]] bool is_exempt(Direction direction, const Tuple& tuple) const noexcept;
    [[nodiscard]] std::optional<Verdict> judge_dns_query(const Frame& frame,
                                                         const Packet& packet) noexcept;
    [[nodiscard]] std::optional<Verdict> look_at_dns_answer(const Frame& frame,
                                                            const Packet& packet) noexcept;
    void learn_dns_answer(const Frame& frame, const Packet& packet) noexcept;

    [[nodiscard]] bool owns(const Address& address) const noexcept;
    // The same, but where nobody has said which addresses the guest has, it may have any that the
    // monitor has not.
    [[nodiscard]] bool may_have(const Address& address) const noexcept;
    [[nodiscard]] bool is_local(const Address& address) const noexcept;
    [[nodiscard]] std::size_t flow_count() const noexcept { return flows4.size() + flows6.size(); }

    // --- set by the owner ---
    InterfaceConfig config;
    FirewallLimits limits;
    std::shared_ptr<const CompiledRules> rules;
    std::vector<RuleCount> rule_counts;
    FlowLog* log = nullptr;
    Nanoseconds now = 0;

    // --- tables ---
    FlowTable<std::uint32_t> flows4;
    FlowTable<V6Bits> flows6;
    FragmentCache fragments;
    NameTable names;
    // By family: the guest's TCP ports whose flows rules before these left untracked.
    std::array<PortSet, 2> once_untracked{};
    std::array<Address, max_learned> learned{};  // link-local addresses the guest announced
    std::size_t learned_count = 0;
    Address dhcp_server;  // who answered last; unspecified when nobody has
    FirewallCounters counts;

    // --- of the last call ---
    std::array<Prepared, Firewall::max_burst + 1> burst;
    Prepared* last = nullptr;  // of the last verdict
    std::array<std::byte, 14 + 40 + 8 + max_refusal> answer{};
    std::size_t answer_size = 0;
    const Tuple* judged = nullptr;  // what the flow log is told; null for no IP packet

  private:
    [[nodiscard]] Verdict judge_ip(Direction direction, const Frame& frame,
                                   Prepared& prepared) noexcept;
    [[nodiscard]] std::optional<Verdict> check_ends(Direction direction,
                                                    const Packet& packet) const noexcept;
    template <class Bits>
    [[nodiscard]] Verdict judge_flow(Direction direction, const Frame& frame, Prepared& prepared,
                                     FlowTable<Bits>& flows) noexcept;
    template <class Bits>
    [[nodiscard]] Verdict judge_new(Direction direction, Prepared& prepared, FlowTable<Bits>& flows,
                                    bool exempt) noexcept;
    template <class Bits>
    [[nodiscard]] bool is_related(Direction direction, const Packet& packet,
                                  FlowTable<Bits>& flows) noexcept;
    void count(Direction direction, const Frame& frame, const Packet& packet,
               const Verdict& verdict) noexcept;
    Tuple fragment_tuple_;
};

// --- addresses that say something by themselves ---
// Never a proper source or unicast destination on a wire.
[[nodiscard]] bool is_martian(const Address& address) noexcept;
[[nodiscard]] bool is_private(const Address& address) noexcept;

[[nodiscard]] inline bool is_group(const MacAddress& mac) noexcept {
    return (mac[0] & 1) != 0;
}

[[nodiscard]] inline Verdict drop(Reason reason) noexcept {
    return {.action = Action::Drop, .reason = reason};
}
[[nodiscard]] inline Verdict pass(Reason reason, std::uint32_t rule = Verdict::no_rule) noexcept {
    return {.action = Action::Pass, .reason = reason, .rule = rule};
}
[[nodiscard]] inline Verdict local() noexcept {
    return {.action = Action::Local, .reason = Reason::LocalService};
}

}  // namespace masu::net

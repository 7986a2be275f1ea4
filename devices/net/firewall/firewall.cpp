// The facade: what an interface calls, and the replacing of rules and settings.
#include "devices/net/firewall/firewall.hpp"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <unordered_map>

#include "devices/net/firewall/firewall_state.hpp"

namespace masu::net {
namespace {

// A full table of the default size, half of it free slots, in 32 calls.
constexpr std::size_t sweep_per_call = 8192;

Result<std::array<SipKey, 4>> random_keys() {
    std::array<SipKey, 4> keys;
    std::size_t done = 0;
    auto* bytes = reinterpret_cast<std::byte*>(keys.data());
    while (done < sizeof keys) {
        const auto got = ::getrandom(bytes + done, sizeof keys - done, 0);
        if (got < 0 && errno != EINTR)
            return fail_errno(errno, "firewall: no random seed from the host");
        if (got > 0)
            done += static_cast<std::size_t>(got);
    }
    return keys;
}

Result<> check(const FirewallLimits& limits) {
    constexpr std::uint32_t most_flows = 16U << 20;
    constexpr std::uint32_t most_names = 1U << 16;
    if (limits.max_flows == 0 || limits.max_flows > most_flows)
        return fail("firewall: max_flows is {}, but must be 1 to {}", limits.max_flows, most_flows);
    if (limits.max_names > most_names)
        return fail("firewall: max_names is {}, but {} is the most", limits.max_names, most_names);
    return {};
}

}  // namespace

Firewall::Firewall(std::unique_ptr<FirewallState> state) : state_(std::move(state)) {}
Firewall::~Firewall() = default;

Result<std::unique_ptr<Firewall>> Firewall::create(InterfaceConfig config,
                                                   const FirewallLimits& limits) {
    TRY(check(limits));
    const auto keys = TRY(random_keys());
    return std::unique_ptr<Firewall>(
        new Firewall(std::make_unique<FirewallState>(std::move(config), limits, keys)));
}

Verdict Firewall::judge(Direction direction, const Frame& frame, Nanoseconds now) noexcept {
    state_->now = std::max(state_->now, now);
    auto& prepared = state_->burst[max_burst];  // the one that no batch uses
    state_->last = &prepared;
    state_->prepare(direction, frame, prepared);
    state_->prefetch(prepared);  // while its ends are checked
    return state_->judge(direction, frame, prepared);
}

void Firewall::prepare(std::size_t place, Direction direction, const Frame& frame) noexcept {
    auto& prepared = state_->burst[place % max_burst];
    state_->prepare(direction, frame, prepared);
    state_->prefetch(prepared);
}

Verdict Firewall::judge_prepared(std::size_t place, Direction direction, const Frame& frame,
                                 Nanoseconds now) noexcept {
    state_->now = std::max(state_->now, now);
    state_->last = &state_->burst[place % max_burst];
    return state_->judge(direction, frame, *state_->last);
}

std::span<const std::byte> Firewall::answer() const noexcept {
    return std::span(state_->answer).first(state_->answer_size);
}

const Packet* Firewall::last_packet() const noexcept {
    return state_->last == nullptr || state_->last->trouble ? nullptr : &state_->last->packet;
}

std::shared_ptr<const CompiledRules> Firewall::replace_rules(
    std::shared_ptr<const CompiledRules> rules) {
    std::unordered_map<std::string, RuleCount> before;
    for (auto& count : state_->rule_counts)
        before.emplace(count.rule_id, count);
    state_->rule_counts.clear();
    if (rules != nullptr) {
        for (const auto& id : rules->rules()) {
            const auto known = before.find(id);
            state_->rule_counts.push_back(known == before.end() ? RuleCount{.rule_id = id}
                                                                : known->second);
        }
        state_->names.set_patterns(rules->names());
    }
    if (state_->rules != nullptr)
        for (const auto family : {Family::V4, Family::V6})
            state_->rules->add_untracked_ports(family,
                                               state_->once_untracked[std::to_underlying(family)]);
    std::swap(state_->rules, rules);
    return rules;
}

void Firewall::replace_config(InterfaceConfig config) {
    if (config.mac != state_->config.mac)
        state_->learned_count = 0;
    state_->config = std::move(config);
}

void Firewall::set_flow_log(FlowLog* log) noexcept {
    state_->log = log;
}

void Firewall::expire(Nanoseconds now) noexcept {
    state_->now = std::max(state_->now, now);
    state_->flows4.sweep(sweep_per_call, state_->now);
    state_->flows6.sweep(sweep_per_call, state_->now);
    state_->flows4.shrink();
    state_->flows6.shrink();
}

FirewallCounters Firewall::counters() const {
    auto counts = state_->counts;
    const auto limit = state_->limits.max_flows;
    counts.conntrack_allowance_available = limit - std::min<std::uint64_t>(limit, flow_count());
    return counts;
}

std::vector<RuleCount> Firewall::rule_counts() const {
    return state_->rule_counts;
}

std::size_t Firewall::flow_count() const noexcept {
    return state_->flow_count();
}

std::size_t Firewall::flow_memory() const noexcept {
    return state_->flows4.memory() + state_->flows6.memory();
}

}  // namespace masu::net

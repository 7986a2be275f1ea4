// Firewall settings from JSON, and its counters as JSON.
#include "vmm/api/firewall_bodies.hpp"

#include "vmm/api/rule_set_body.hpp"

namespace masu::api {

Result<action::SetSecurityGroups> read_security_groups(JsonObject& body, std::string iface_id) {
    auto set = TRY(read_rule_set(body));
    auto compiled = net::compile(set.rules, set.members);
    if (!compiled)
        return in_context(body.where(), std::move(compiled.error()));
    return action::SetSecurityGroups{.iface_id = std::move(iface_id),
                                     .groups = std::move(set.groups),
                                     .rules = *std::move(compiled)};
}

Result<action::SetFlowLog> read_flow_log(JsonObject& body, std::string iface_id) {
    constexpr std::uint64_t longest_interval = 600;
    action::SetFlowLog flow_log{.iface_id = std::move(iface_id), .config = {}};
    auto& config = flow_log.config;
    config.path = body.required_string("path");
    config.format = body.string("format").value_or(config.format);
    config.interval = static_cast<std::uint32_t>(
        body.integer("interval", longest_interval).value_or(config.interval));
    config.account_id = body.string("account_id");
    TRY(body.finish());
    return flow_log;
}

void write(JsonWriter& json, const FirewallReport& report) {
    json.begin_object();
    json.key("security_groups").begin_array();
    for (const auto& group : report.groups)
        json.value(group);
    json.end_array();
    json.field("flows", report.flows)
        .field("flow_memory", report.flow_memory)
        .field("conntrack_allowance_exceeded", report.counters.conntrack_allowance_exceeded)
        .field("conntrack_allowance_available", report.counters.conntrack_allowance_available);
    json.key("verdicts").begin_object();
    for (std::size_t i = 0; i < net::reason_count; ++i)
        json.key(to_string(static_cast<net::Reason>(i)))
            .begin_object()
            .field("packets", report.counters.packets[i])
            .field("bytes", report.counters.bytes[i])
            .end_object();
    json.end_object();
    json.key("rules").begin_array();
    for (const auto& rule : report.rules)
        json.begin_object()
            .field("id", rule.rule_id)
            .field("packets", rule.packets)
            .field("bytes", rule.bytes)
            .end_object();
    json.end_array();
    json.end_object();
}

}  // namespace masu::api

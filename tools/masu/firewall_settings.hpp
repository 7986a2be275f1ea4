// What a VM's firewall does beside its rules: how long flows may idle, which ICMP errors pass, and
// whether names may stand for private addresses.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <boost/json/object.hpp>

#include "devices/net/firewall/rules.hpp"

namespace CLI {
class App;
}

namespace masu::cli {

struct FirewallSettings {
    net::FlowTimeouts timeouts;
    bool related_icmp_errors = true;
    bool private_name_answers = false;
    bool operator==(const FirewallSettings&) const = default;
};

// The fields of a rule document (PUT /network-interfaces/{id}/security-groups), which are those of
// vm.json too. Throws on a bad shape.
[[nodiscard]] boost::json::object to_json(const FirewallSettings& settings);
[[nodiscard]] FirewallSettings firewall_settings_from_json(const boost::json::object& object);

// As options; what is not given stays as it is.
struct FirewallOptions {
    std::optional<std::uint32_t> tcp_established;
    std::optional<std::uint32_t> udp_stream;
    std::optional<std::uint32_t> udp;
    std::string icmp_errors;           // "related", "strict" or nothing
    std::string private_name_answers;  // "on", "off" or nothing
    [[nodiscard]] bool any() const {
        return tcp_established || udp_stream || udp || !icmp_errors.empty() ||
               !private_name_answers.empty();
    }
};
void add_firewall_options(CLI::App& command, FirewallOptions& options);
void apply(const FirewallOptions& options, FirewallSettings& settings);

}  // namespace masu::cli

// The names of reasons.
#include "devices/net/firewall/verdict.hpp"

namespace masu::net {

std::string_view to_string(Reason reason) noexcept {
    static constexpr std::array<std::string_view, reason_count> names{
        "tracked_flow",      "new_flow",         "untracked_rule",  "related_error",
        "later_fragment",    "neighbor_traffic", "exempt_service",  "local_service",
        "no_rule",           "no_rules",         "table_full",      "malformed_frame",
        "unsupported_frame", "source_mac",       "destination_mac", "source_check",
        "destination_check", "neighbor_spoof",   "multicast",       "fragment_without_first",
        "fragment_overlap",  "name_refused",
    };
    const auto index = std::to_underlying(reason);
    return index < names.size() ? names[index] : "unknown";
}

}  // namespace masu::net

// Bodies of the requests about an interface's firewall and flow log.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"
#include "vmm/api/json_reader.hpp"
#include "vmm/api/json_writer.hpp"
#include "vmm/vmm_action.hpp"

namespace masu::api {

// Rules are compiled here, so that a document that makes no sense changes nothing.
[[nodiscard]] Result<action::SetSecurityGroups> read_security_groups(JsonObject& body,
                                                                     std::string iface_id);
[[nodiscard]] Result<action::SetFlowLog> read_flow_log(JsonObject& body, std::string iface_id);

void write(JsonWriter& json, const FirewallReport& report);

}  // namespace masu::api

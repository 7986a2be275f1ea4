// The JSON of network interfaces and of the metadata service's configuration, both ways.
#pragma once

#include "base/result.hpp"
#include "vmm/api/json_reader.hpp"
#include "vmm/api/json_writer.hpp"
#include "vmm/vmm_action.hpp"

namespace masu::api {

// As in vmm/api/bodies.hpp: types and names only; whether it makes sense is for check().
[[nodiscard]] Result<NetworkInterfaceConfig> read_network_interface(JsonObject& body);
[[nodiscard]] Result<action::PatchNetworkInterface> read_network_interface_patch(JsonObject& body);
[[nodiscard]] Result<MmdsConfig> read_mmds_config(JsonObject& body);
[[nodiscard]] Result<InstanceMetadataConfig> read_instance_metadata(JsonObject& body);

void write(JsonWriter& json, const NetworkInterfaceConfig& interface);
// The field guest_network, where there is one.
[[nodiscard]] Result<std::optional<GuestNetworkConfig>> read_guest_network(JsonObject& owner);
// Without `secrets` (user data, credentials, keys, tags): who may read the configuration may not
// read those.
void write(JsonWriter& json, const InstanceMetadataConfig& metadata, bool secrets = false);
void write(JsonWriter& json, const MmdsConfig& mmds);

}  // namespace masu::api

// The JSON of configurations, both ways: bodies of requests and sections of the config file in,
// replies out.
#pragma once

#include "base/result.hpp"
#include "vmm/api/json_reader.hpp"
#include "vmm/api/json_writer.hpp"
#include "vmm/vmm_action.hpp"

namespace masu::api {

// Each reads one object and refuses unknown fields. They look at types and names; whether the
// values make sense is for check() in vmm/config_check.hpp.
[[nodiscard]] Result<MachineConfig> read_machine_config(JsonObject& body);
[[nodiscard]] Result<action::PatchMachineConfig> read_machine_patch(JsonObject& body);
[[nodiscard]] Result<BootSource> read_boot_source(JsonObject& body);
[[nodiscard]] Result<DriveConfig> read_drive(JsonObject& body);
[[nodiscard]] Result<action::PatchDrive> read_drive_patch(JsonObject& body);
[[nodiscard]] Result<action::CreateSnapshot> read_snapshot_create(JsonObject& body);
[[nodiscard]] Result<action::LoadSnapshot> read_snapshot_load(JsonObject& body);
void write(JsonWriter& json, const snapshot::SaveProgress& progress);
[[nodiscard]] Result<EntropyConfig> read_entropy(JsonObject& body);
[[nodiscard]] Result<VsockConfig> read_vsock(JsonObject& body);
[[nodiscard]] Result<LoggerConfig> read_logger(JsonObject& body);
[[nodiscard]] Result<MetricsConfig> read_metrics(JsonObject& body);
[[nodiscard]] Result<action::SetSerial> read_serial(JsonObject& body);

void write(JsonWriter& json, const MachineConfig& machine);
// A rate limiter of `owner`, where it has one.
[[nodiscard]] Result<std::optional<RateLimiterConfig>> read_limiter(
    JsonObject& owner, std::string_view key = "rate_limiter");
// Nothing where nothing is limited.
void write_limiter(JsonWriter& json, const RateLimiterConfig& limiter,
                   std::string_view key = "rate_limiter");
// The shape of the config file.
void write(JsonWriter& json, const FullConfig& config);
// {"utc_timestamp_ms": n, "GROUP": {"NAME": n}}; more fields may be put in front by the caller.
void write_fields(JsonWriter& json, const MetricsReport& report);

}  // namespace masu::api

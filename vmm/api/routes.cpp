// The table of paths.
#include "vmm/api/routes.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "vmm/api/bodies.hpp"
#include "vmm/api/firewall_bodies.hpp"
#include "vmm/api/network_bodies.hpp"
#include "vmm/config_check.hpp"
#include "vmm/version.hpp"

namespace masu::api {
namespace {

// What a route gets: the id of the path (empty where the path has none), and the body.
struct Call {
    std::string id;
    std::string_view body;
};

template <class Action>
Result<VmmAction> plain(const Call&) {
    return Action{};
}

Result<VmmAction> put_machine_config(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "machine-config"));
    return action::SetMachineConfig{TRY(read_machine_config(body))};
}

Result<VmmAction> patch_machine_config(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "machine-config"));
    return TRY(read_machine_patch(body));
}

Result<VmmAction> put_boot_source(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "boot-source"));
    return action::SetBootSource{TRY(read_boot_source(body))};
}

Result<> check_ids(const std::string& path_id, const std::string& body_id) {
    TRY(check_drive_id(path_id));
    if (path_id != body_id)
        return fail("the drive id of the path is '{}', but drive_id of the body is '{}'", path_id,
                    body_id);
    return {};
}

Result<VmmAction> put_drive(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "drive"));
    auto drive = TRY(read_drive(body));
    TRY(check_ids(call.id, drive.drive_id));
    return action::SetDrive{std::move(drive)};
}

Result<VmmAction> patch_drive(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "drive"));
    auto patch = TRY(read_drive_patch(body));
    TRY(check_ids(call.id, patch.drive_id));
    return patch;
}

Result<> check_interface_ids(const std::string& path_id, const std::string& body_id) {
    TRY(check_interface_id(path_id));
    if (path_id != body_id)
        return fail("the interface id of the path is '{}', but iface_id of the body is '{}'",
                    path_id, body_id);
    return {};
}

Result<VmmAction> put_network_interface(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "network-interface"));
    auto interface = TRY(read_network_interface(body));
    TRY(check_interface_ids(call.id, interface.iface_id));
    return action::SetNetworkInterface{std::move(interface)};
}

Result<VmmAction> put_security_groups(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "security-groups"));
    return TRY(read_security_groups(body, call.id));
}

Result<VmmAction> put_flow_log(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "flow-log"));
    return TRY(read_flow_log(body, call.id));
}

Result<VmmAction> get_firewall(const Call& call) {
    return action::GetFirewall{call.id};
}

Result<VmmAction> patch_network_interface(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "network-interface"));
    auto patch = TRY(read_network_interface_patch(body));
    TRY(check_interface_ids(call.id, patch.iface_id));
    return patch;
}

Result<VmmAction> put_mmds_config(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "mmds-config"));
    return action::SetMmdsConfig{TRY(read_mmds_config(body))};
}

Result<VmmAction> put_instance_metadata(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "instance-metadata"));
    return action::SetInstanceMetadata{TRY(read_instance_metadata(body))};
}

Result<VmmAction> put_mmds(const Call& call) {
    return action::PutMmds{std::string(call.body)};
}

Result<VmmAction> patch_mmds(const Call& call) {
    return action::PatchMmds{std::string(call.body)};
}

Result<VmmAction> put_entropy(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "entropy"));
    return action::SetEntropy{TRY(read_entropy(body))};
}

Result<VmmAction> put_vsock(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "vsock"));
    return action::SetVsock{TRY(read_vsock(body))};
}

Result<VmmAction> put_snapshot_create(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "snapshot/create"));
    return TRY(read_snapshot_create(body));
}

Result<VmmAction> put_working_set(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "snapshot/working-set"));
    TRY(body.finish());
    return action::EndWorkingSet{};
}

Result<VmmAction> put_snapshot_prepare(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "snapshot/prepare"));
    return action::PrepareLoad{TRY(read_snapshot_load(body))};
}

Result<VmmAction> put_snapshot_load(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "snapshot/load"));
    return TRY(read_snapshot_load(body));
}

Result<VmmAction> put_logger(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "logger"));
    return action::SetLogger{TRY(read_logger(body))};
}

Result<VmmAction> put_metrics(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "metrics"));
    return action::SetMetrics{TRY(read_metrics(body))};
}

Result<VmmAction> put_serial(const Call& call) {
    auto body = TRY(JsonObject::parse(call.body, "serial"));
    return TRY(read_serial(body));
}

// One word of a list, each standing for an action without parameters.
using Verb = std::pair<std::string_view, Result<VmmAction> (*)(const Call&)>;
Result<VmmAction> read_verb(const Call& call, std::string_view where, std::string_view key,
                            std::span<const Verb> verbs) {
    auto body = TRY(JsonObject::parse(call.body, std::string(where)));
    const auto verb = body.choice(key, verbs);
    if (!verb)
        body.complain(key, "is missing");
    TRY(body.finish());
    return (*verb)(call);
}

Result<VmmAction> put_actions(const Call& call) {
    static constexpr std::array<Verb, 5> verbs{{{"InstanceStart", plain<action::StartInstance>},
                                                {"FlushMetrics", plain<action::FlushMetrics>},
                                                {"SendCtrlAltDel", plain<action::SendCtrlAltDel>},
                                                {"PowerButton", plain<action::PressPowerButton>},
                                                {"Stop", plain<action::Stop>}}};
    return read_verb(call, "actions", "action_type", verbs);
}

Result<VmmAction> patch_vm(const Call& call) {
    static constexpr std::array<Verb, 2> verbs{
        {{"Paused", plain<action::Pause>}, {"Resumed", plain<action::Resume>}}};
    return read_verb(call, "vm", "state", verbs);
}

struct Route {
    std::string_view method;
    std::string_view path;  // "*" stands for an id
    Result<VmmAction> (*handler)(const Call&);
};

constexpr std::array<Route, 33> routes{{
    {"GET", "/", plain<action::GetInstanceInfo>},
    {"GET", "/version", plain<action::GetVersion>},
    {"GET", "/machine-config", plain<action::GetMachineConfig>},
    {"PUT", "/machine-config", put_machine_config},
    {"PATCH", "/machine-config", patch_machine_config},
    {"PUT", "/boot-source", put_boot_source},
    {"PUT", "/drives/*", put_drive},
    {"PATCH", "/drives/*", patch_drive},
    {"PUT", "/network-interfaces/*", put_network_interface},
    {"PATCH", "/network-interfaces/*", patch_network_interface},
    {"PUT", "/network-interfaces/*/security-groups", put_security_groups},
    {"PUT", "/network-interfaces/*/flow-log", put_flow_log},
    {"GET", "/network-interfaces/*/firewall", get_firewall},
    {"PUT", "/mmds/config", put_mmds_config},
    {"PUT", "/instance-metadata", put_instance_metadata},
    {"PUT", "/mmds", put_mmds},
    {"PATCH", "/mmds", patch_mmds},
    {"GET", "/mmds", plain<action::GetMmds>},
    {"PUT", "/entropy", put_entropy},
    {"PUT", "/vsock", put_vsock},
    {"PUT", "/actions", put_actions},
    {"PUT", "/snapshot/create", put_snapshot_create},
    {"GET", "/snapshot/create", plain<action::GetSaveProgress>},
    {"PUT", "/snapshot/load", put_snapshot_load},
    {"PUT", "/snapshot/prepare", put_snapshot_prepare},
    {"PUT", "/snapshot/working-set", put_working_set},
    {"PATCH", "/vm", patch_vm},
    {"GET", "/vm/config", plain<action::GetVmConfig>},
    {"PUT", "/logger", put_logger},
    {"PUT", "/metrics", put_metrics},
    {"PUT", "/serial", put_serial},
    {"GET", "/metrics", plain<action::GetMetrics>},
    {"GET", "/boot-timer", plain<action::GetBootTimer>},
}};

// Known to other monitors with this API, not to this one.
constexpr std::array<std::string_view, 5> absent_features{"cpu-config", "balloon", "pmem",
                                                          "hotplug", "memory"};

// The path of "http://host/path" or "/path", without one slash at the end.
std::string_view path_of(std::string_view target) {
    constexpr std::string_view scheme = "http://";
    if (target.starts_with(scheme)) {
        const auto slash = target.find('/', scheme.size());
        target = slash == std::string_view::npos ? "/" : target.substr(slash);
    }
    if (target.size() > 1 && target.ends_with('/'))
        target.remove_suffix(1);
    return target;
}

// The id that '*' stands for ("" when the pattern has none), or nothing where they do not match.
std::optional<std::string> match(std::string_view pattern, std::string_view path) {
    const auto star = pattern.find('*');
    if (star == std::string_view::npos)
        return pattern == path ? std::optional(std::string()) : std::nullopt;
    const auto rest = pattern.substr(star + 1);
    if (!path.starts_with(pattern.substr(0, star)) || !path.ends_with(rest) ||
        path.size() < star + rest.size())
        return std::nullopt;
    const auto id = path.substr(star, path.size() - star - rest.size());
    return id.contains('/') ? std::nullopt : std::optional(std::string(id));
}

Result<> check_body(const HttpRequest& request) {
    const bool wants_body = request.method == "PUT" || request.method == "PATCH";
    if (wants_body && request.body.empty())
        return fail("{} needs a JSON body", request.method);
    if (!wants_body && !request.body.empty())
        return fail("{} takes no body", request.method);
    return {};
}

Result<VmmAction> no_route(std::string_view method, std::string_view path) {
    auto first = path.substr(std::min<std::size_t>(1, path.size()));
    first = first.substr(0, first.find('/'));
    if (std::ranges::find(absent_features, first) != absent_features.end())
        return fail("/{} is not supported by this version of Masu ({})", first, version());
    std::string methods;
    for (const auto& route : routes)
        if (match(route.path, path))
            methods += (methods.empty() ? "" : ", ") + std::string(route.method);
    if (!methods.empty())
        return fail("{} is not a method of {}; it takes {}", method, path.substr(0, 128), methods);
    return fail("there is no path {} in this API", path.substr(0, 128));
}

void write(JsonWriter& json, const InstanceInfo& info) {
    json.begin_object()
        .field("id", info.id)
        .field("state", to_string(info.state))
        .field("vmm_version", version())
        .field("app_name", "Masu")
        .field("jail", info.jail.empty() ? "none" : fmt::format("{}", fmt::join(info.jail, ", ")))
        .end_object();
}

// Stock clients read this key and no other.
void write(JsonWriter& json, const VersionInfo&) {
    json.begin_object().field("firecracker_version", version()).end_object();
}

void write(JsonWriter& json, const JsonText& document) {
    json.raw(document.text);
}

void write(JsonWriter& json, const MetricsReport& report) {
    json.begin_object();
    write_fields(json, report);
    json.end_object();
}

void write(JsonWriter& json, const BootTimes& times) {
    json.begin_object();
    for (std::size_t i = 0; i < milestone_count; ++i)
        if (times.since_start[i])
            json.field(to_string(static_cast<Milestone>(i)), *times.since_start[i]);
    json.end_object();
}

}  // namespace

Result<VmmAction> route(const HttpRequest& request) {
    const auto path = path_of(request.target);
    for (const auto& route : routes) {
        if (route.method != request.method)
            continue;
        if (auto id = match(route.path, path)) {
            TRY(check_body(request));
            return route.handler({std::move(*id), request.body});
        }
    }
    return no_route(request.method, path);
}

HttpReply to_reply(const Result<VmmReply>& outcome) {
    if (!outcome)  // EFBIG: of a metadata document above its limit
        return {outcome.error().os_errno == EFBIG ? 413U : 400U,
                error_body("fault_message", outcome.error().message)};
    JsonWriter json;
    std::visit(
        [&json](const auto& reply) {
            if constexpr (!std::is_same_v<std::decay_t<decltype(reply)>, Done>)
                write(json, reply);
        },
        *outcome);
    return {json.text().empty() ? 204U : 200U, json.text()};
}

std::string error_body(std::string_view key, std::string_view text) {
    return JsonWriter().begin_object().field(key, text).end_object().text();
}

}  // namespace masu::api

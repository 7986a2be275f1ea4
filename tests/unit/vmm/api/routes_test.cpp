// The paths of the API: what each takes, and what it refuses.
#include "vmm/api/routes.hpp"

#include <doctest/doctest.h>

#include <variant>

#include "devices/net/firewall/compiled_rules.hpp"
#include "vmm/api/json_reader.hpp"

using namespace masu;
using namespace masu::api;

namespace {

template <class Action>
bool is(const Result<VmmAction>& result) {
    return result && std::holds_alternative<Action>(*result);
}

std::string refusal(std::string_view method, std::string_view target, std::string_view body = "") {
    const auto result = route({method, target, body});
    return result ? "accepted" : result.error().message;
}

bool contains(std::string_view text, std::string_view part) {
    return text.find(part) != std::string_view::npos;
}

}  // namespace

TEST_CASE("every endpoint takes its plain request") {
    CHECK(is<action::GetInstanceInfo>(route({"GET", "/", ""})));
    CHECK(is<action::GetVersion>(route({"GET", "/version", ""})));
    CHECK(is<action::GetMachineConfig>(route({"GET", "/machine-config", ""})));
    CHECK(is<action::GetVmConfig>(route({"GET", "/vm/config", ""})));
    CHECK(is<action::GetMetrics>(route({"GET", "/metrics", ""})));
    CHECK(is<action::GetBootTimer>(route({"GET", "/boot-timer", ""})));
    CHECK(is<action::SetMachineConfig>(
        route({"PUT", "/machine-config", R"({"vcpu_count": 2, "mem_size_mib": 512})"})));
    CHECK(is<action::PatchMachineConfig>(
        route({"PATCH", "/machine-config", R"({"vcpu_count": 2})"})));
    CHECK(is<action::SetBootSource>(
        route({"PUT", "/boot-source", R"({"kernel_image_path": "/k"})"})));
    CHECK(is<action::SetDrive>(
        route({"PUT", "/drives/a",
               R"({"drive_id": "a", "path_on_host": "/d", "is_root_device": false})"})));
    CHECK(is<action::PatchDrive>(route({"PATCH", "/drives/a", R"({"drive_id": "a"})"})));
    CHECK(is<action::SetEntropy>(route({"PUT", "/entropy", "{}"})));
    const auto vsock =
        route({"PUT", "/vsock", R"({"vsock_id": "v", "guest_cid": 4294967295, "uds_path": "/v"})"});
    REQUIRE(is<action::SetVsock>(vsock));
    CHECK(std::get<action::SetVsock>(*vsock).vsock.guest_cid == 0xffff'ffff);
    CHECK(std::get<action::SetVsock>(*vsock).vsock.uds_path == "/v");
    CHECK(is<action::SetLogger>(route({"PUT", "/logger", R"({"level": "Warning"})"})));
    CHECK(is<action::SetMetrics>(route({"PUT", "/metrics", R"({"metrics_path": "/m"})"})));
    CHECK(is<action::SetSerial>(route({"PUT", "/serial", R"({"serial_out_path": "/s"})"})));
    CHECK(is<action::Pause>(route({"PATCH", "/vm", R"({"state": "Paused"})"})));
    CHECK(is<action::Resume>(route({"PATCH", "/vm", R"({"state": "Resumed"})"})));
}

TEST_CASE("every action type stands for its action") {
    const auto put = [](std::string_view type) {
        return route({"PUT", "/actions", fmt::format(R"({{"action_type": "{}"}})", type)});
    };
    CHECK(is<action::StartInstance>(put("InstanceStart")));
    CHECK(is<action::FlushMetrics>(put("FlushMetrics")));
    CHECK(is<action::SendCtrlAltDel>(put("SendCtrlAltDel")));
    CHECK(is<action::PressPowerButton>(put("PowerButton")));
    CHECK(is<action::Stop>(put("Stop")));
    CHECK(contains(refusal("PUT", "/actions", R"({"action_type": "Explode"})"), "Explode"));
}

TEST_CASE("a full drive is read to the last field") {
    const auto result = route({"PUT", "http://localhost/drives/root_1/", R"({
        "drive_id": "root_1", "path_on_host": "/base", "is_root_device": true,
        "partuuid": "0eaa91a0-01", "is_read_only": false, "cache_type": "Unsafe",
        "io_engine": "Sync", "overlay_path": "/over", "overlay_size": 1048576,
        "serial": "S1", "direct": true,
        "rate_limiter": {"bandwidth": {"size": 10, "refill_time": 20, "one_time_burst": 30,
                                       "a field of tomorrow": 1},
                         "ops": {"size": 1, "refill_time": 2}}})"});
    REQUIRE(is<action::SetDrive>(result));
    const auto& drive = std::get<action::SetDrive>(*result).drive;
    CHECK(drive.drive_id == "root_1");
    CHECK(drive.path_on_host == "/base");
    CHECK(drive.is_root_device);
    CHECK(*drive.partuuid == "0eaa91a0-01");
    CHECK(drive.cache_type == CacheType::Unsafe);
    CHECK(drive.io_engine == IoEngine::Sync);
    CHECK(*drive.overlay_path == "/over");
    CHECK(*drive.overlay_size == 1048576);
    CHECK(*drive.serial == "S1");
    CHECK(drive.direct);
    CHECK(drive.rate_limiter.bandwidth == TokenBucketConfig{10, 20, 30});
    CHECK(drive.rate_limiter.ops == TokenBucketConfig{1, 2, 0});
}

TEST_CASE("a load is prepared by its own body") {
    const auto prepared = route({"PUT", "/snapshot/prepare", R"({"directory": "/s"})"});
    REQUIRE(is<action::PrepareLoad>(prepared));
    CHECK(std::get<action::PrepareLoad>(*prepared).load.state_path == "/s/state");
    CHECK_FALSE(route({"PUT", "/snapshot/prepare", "{}"}));
}

TEST_CASE("a load with other backends and another identity is read to the last field") {
    const auto loaded = route({"PUT", "/snapshot/load", R"({
        "snapshot_path": "/s", "mem_backend": {"backend_type": "File", "backend_path": "/m"},
        "network_overrides": [
            {"iface_id": "net0", "host_dev_name": "tap3"},
            {"iface_id": "net1", "passt_fd": 7, "network_mac": "06:00:00:00:00:09",
             "guest_network": {"address": "10.0.0.2/24", "gateway": "10.0.0.1"}},
            {"iface_id": "net2", "tap_fds": [8, 9]}],
        "identity": {"instance_id": "i-1", "hostname": "web"}})"});
    REQUIRE(is<action::LoadSnapshot>(loaded));
    const auto& load = std::get<action::LoadSnapshot>(*loaded);
    REQUIRE(load.interfaces.size() == 3);
    CHECK(load.interfaces[0].host_dev_name == "tap3");
    CHECK_FALSE(load.interfaces[0].guest_network);
    CHECK(load.interfaces[1].passt_fd == 7);
    CHECK_FALSE(load.interfaces[0].network_mac);
    CHECK(load.interfaces[1].network_mac == "06:00:00:00:00:09");
    CHECK(load.interfaces[1].guest_network->gateway == "10.0.0.1");
    CHECK(load.interfaces[2].tap_fds == std::vector<int>{8, 9});
    REQUIRE(load.identity);
    CHECK(load.identity->hostname == "web");
}

TEST_CASE("memory to load comes from a file, or from a page fault handler") {
    struct Backend {
        const char* body;
        const char* path;
        const char* handler;
    };
    const auto backends = std::to_array<Backend>({
        {R"({"directory": "/s"})", "/s/memory", ""},
        {R"({"directory": "/s", "mem_backend": {"backend_type": "File", "backend_path": "/m"}})",
         "/m", ""},
        {R"({"directory": "/s", "mem_backend": {"backend_type": "Uffd", "backend_path": "/u"}})",
         "/s/memory", "/u"},
        {R"({"snapshot_path": "/s", "mem_file_path": "/m"})", "/m", ""},
        {R"({"snapshot_path": "/s",
             "mem_backend": {"backend_type": "Uffd", "backend_path": "/u"}})",
         "", "/u"},
    });
    for (const auto& [body, path, handler] : backends) {
        CAPTURE(body);
        const auto loaded = route({"PUT", "/snapshot/load", body});
        REQUIRE(is<action::LoadSnapshot>(loaded));
        const auto& load = std::get<action::LoadSnapshot>(*loaded);
        CHECK(load.memory_path == path);
        CHECK(load.memory_handler == handler);
    }
}

TEST_CASE("bad bodies are refused with the reason") {
    struct Bad {
        const char* method;
        const char* path;
        const char* body;
        const char* reason;
    };
    const auto bad = std::to_array<Bad>({
        // missing
        {"PUT", "/machine-config", R"({"vcpu_count": 2})", "`mem_size_mib` is missing"},
        {"PUT", "/boot-source", "{}", "`kernel_image_path` is missing"},
        {"PUT", "/drives/a", R"({"drive_id": "a", "path_on_host": "/d"})",
         "`is_root_device` is missing"},
        {"PUT", "/drives/a", R"({"drive_id": "a", "is_root_device": true})",
         "`path_on_host` is missing"},
        {"PATCH", "/drives/a", "{}", "`drive_id` is missing"},
        {"PUT", "/actions", "{}", "`action_type` is missing"},
        {"PATCH", "/vm", R"({"state": null})", "`state` is missing"},
        {"PUT", "/metrics", "{}", "`metrics_path` is missing"},
        {"PATCH", "/machine-config", "{}", "empty"},
        {"PUT", "/entropy", R"({"rate_limiter": {"ops": {"size": 1}}})",
         "`refill_time` is missing"},
        // wrong type
        {"PUT", "/machine-config", R"({"vcpu_count": "2", "mem_size_mib": 512})", "`vcpu_count`"},
        {"PUT", "/machine-config", R"({"vcpu_count": -1, "mem_size_mib": 512})", "`vcpu_count`"},
        {"PUT", "/machine-config", R"({"vcpu_count": 1.5, "mem_size_mib": 512})", "`vcpu_count`"},
        {"PUT", "/machine-config", R"({"vcpu_count": 256, "mem_size_mib": 512})", "255 at most"},
        {"PUT", "/machine-config", R"({"vcpu_count": 2, "mem_size_mib": 512, "smt": 1})", "`smt`"},
        {"PUT", "/machine-config", R"({"vcpu_count": 2, "mem_size_mib": 512, "huge_pages": "1G"})",
         "2M"},
        {"PUT", "/machine-config",
         R"({"vcpu_count": 2, "mem_size_mib": 512, "cpu_template": "T2"})",
         "x86-64-v2, x86-64-v3, x86-64-v4"},
        {"PUT", "/boot-source", R"({"kernel_image_path": 1})", "must be a string"},
        {"PUT", "/boot-source", R"({"kernel_image_path": "a\u0000b"})", "NUL"},
        {"PUT", "/entropy", R"({"rate_limiter": []})", "must be an object"},
        {"PUT", "/metrics", R"({"metrics_path": "/m", "properties": {"a": 1}})", "strings only"},
        {"PUT", "/logger", R"({"level": 3})", "`level`"},
        {"PUT", "/logger", R"({"module": "a"})", "`module`"},
        {"PUT", "/serial", R"({"rate_limiter": {"size": 1, "refill_time": 1}})", "`rate_limiter`"},
        {"PATCH", "/drives/a", R"({"drive_id": "a", "path_on_host": ""})", "is empty"},
        {"PATCH", "/vm", R"({"state": "Stopped"})", "Paused, Resumed"},
        {"PUT", "/entropy", "[]", "must be a JSON object"},
        {"PUT", "/entropy", "{", "not valid JSON"},
        {"PUT", "/entropy", "{} {}", "not valid JSON"},
        {"PUT", "/entropy", "{\"a\": \"\xff\"}", "not valid JSON"},
        // unknown field
        {"PUT", "/machine-config", R"({"vcpu_count": 2, "mem_size_mib": 512, "ht": true})",
         "unknown field `ht`"},
        {"PATCH", "/machine-config", R"({"cpus": 2})", "unknown field `cpus`"},
        {"PUT", "/boot-source", R"({"kernel_image_path": "/k", "args": ""})",
         "unknown field `args`"},
        {"PUT", "/drives/a",
         R"({"drive_id": "a", "path_on_host": "/d", "is_root_device": true, "ro": 1})",
         "unknown field `ro`"},
        {"PUT", "/drives/a", R"({"drive_id": "a", "is_root_device": true, "socket": "/s"})",
         "`socket`"},
        {"PATCH", "/drives/a", R"({"drive_id": "a", "size": 1})", "unknown field `size`"},
        {"PUT", "/entropy", R"({"rate_limiter": {"cpu": {}}})", "unknown field `cpu`"},
        {"PUT", "/logger", R"({"path": "/l"})", "unknown field `path`"},
        {"PUT", "/metrics", R"({"metrics_path": "/m", "period": 1})", "unknown field `period`"},
        {"PUT", "/serial", R"({"path": "/s"})", "unknown field `path`"},
        {"PUT", "/actions", R"({"action_type": "Stop", "force": true})", "unknown field `force`"},
        {"PATCH", "/vm", R"({"state": "Paused", "now": 1})", "unknown field `now`"},
        // ids
        {"PUT", "/drives/a", R"({"drive_id": "b", "path_on_host": "/d", "is_root_device": true})",
         "'a', but drive_id of the body is 'b'"},
        {"PUT", "/drives/a-b",
         R"({"drive_id": "a-b", "path_on_host": "/d", "is_root_device": true})", "not valid"},
        {"PATCH", "/drives/b", R"({"drive_id": "a"})", "'b'"},
        // bodies where there are none, and the other way round
        {"GET", "/", "{}", "takes no body"},
        {"GET", "/vm/config", "{}", "takes no body"},
        {"PUT", "/entropy", "", "needs a JSON body"},
        {"PATCH", "/vm", "", "needs a JSON body"},
        // methods and paths
        {"PUT", "/version", "{}", "it takes GET"},
        {"GET", "/boot-source", "", "it takes PUT"},
        {"DELETE", "/drives/a", "", "it takes PUT, PATCH"},
        {"GET", "/nowhere", "", "no path /nowhere"},
        {"GET", "", "", "no path"},
        {"GET", "/vm/config/more", "", "no path"},
        {"PUT", "/cpu-config", "{}", "not supported"},
        {"PUT", "/vsock", R"({"uds_path": "/v"})", "`guest_cid` is missing"},
        {"PUT", "/vsock", R"({"guest_cid": 4294967296, "uds_path": "/v"})", "guest_cid"},
        {"PUT", "/vsock", R"({"guest_cid": -1, "uds_path": "/v"})", "guest_cid"},
        {"PUT", "/vsock", R"({"guest_cid": 3, "uds_path": "/v", "port": 1})",
         "unknown field `port`"},
        {"PUT", "/snapshot/load", R"({"directory": "/s", "vsock_override": {}})",
         "`uds_path` is missing"},
        {"PUT", "/network-interfaces/eth0", "{}", "`iface_id` is missing"},
        {"PUT", "/network-interfaces/eth0", R"({"iface_id":"eth1","host_dev_name":"t"})", "eth1"},
        {"PUT", "/network-interfaces/a-b", R"({"iface_id":"a-b","host_dev_name":"t"})", "a-b"},
        {"PUT", "/network-interfaces/e", R"({"iface_id":"e","mtu":70000})", "65535 at most"},
        {"PUT", "/network-interfaces/e", R"({"iface_id":"e","tap_fds":[-1]})", "whole numbers"},
        {"PUT", "/network-interfaces/e", R"({"iface_id":"e","guest_network":{}})", "`address`"},
        {"PATCH", "/network-interfaces/e", R"({"iface_id":"e","guest_mac":"x"})", "unknown field"},
        {"PUT", "/network-interfaces/e/security-groups", "{}", "`rules` is missing"},
        {"PUT", "/network-interfaces/e/flow-log", "{}", "`path` is missing"},
        {"GET", "/network-interfaces/e/security-groups", "", "it takes PUT"},
        {"PUT", "/network-interfaces/e/f/security-groups", "{}", "there is no path"},
        {"PUT", "/mmds/config", R"({"network_interfaces":["e"],"version":"V3"})", "V1, V2"},
        {"PUT", "/instance-metadata", R"({"network_interfaces":["e"]})", "`instance_id`"},
        {"PUT", "/instance-metadata",
         R"({"network_interfaces":["e"],"instance_id":"i-1","hostname":"h","user_data":"*"})",
         "base64"},
        {"DELETE", "/mmds", "", "it takes PUT, PATCH, GET"},
        {"PUT", "/snapshot/create", "{}", "snapshot_path"},
        {"PUT", "/snapshot/load", R"({"directory": "/s", "network_overrides": [{}]})", "iface_id"},
        {"PUT", "/snapshot/load",
         R"({"directory": "/s", "network_overrides": [{"iface_id": "e", "tap": "t"}]})", "tap"},
        {"PUT", "/snapshot/load", R"({"directory": "/s", "identity": {"hostname": "h"}})",
         "instance_id"},
        {"PUT", "/snapshot/load", R"({"snapshot_path": "/s"})", "must be given"},
        {"PUT", "/snapshot/load",
         R"({"snapshot_path": "/s", "mem_file_path": "/m",
             "mem_backend": {"backend_type": "File", "backend_path": "/m"}})",
         "not both"},
        {"PUT", "/snapshot/load",
         R"({"snapshot_path": "/s", "mem_backend": {"backend_path": "/m"}})", "backend_type"},
        {"GET", "/balloon", "", "not supported"},
    });
    for (const auto& request : bad) {
        CAPTURE(request.method);
        CAPTURE(request.path);
        CAPTURE(request.body);
        const auto text = refusal(request.method, request.path, request.body);
        CHECK_MESSAGE(contains(text, request.reason), text);
        CHECK_FALSE(contains(text, "\n"));
    }
}

TEST_CASE("a deeply nested body is refused, not recursed into") {
    const std::string deep = R"({"rate_limiter":)" + std::string(20'000, '[');
    CHECK(contains(refusal("PUT", "/entropy", deep), "not valid JSON"));
}

TEST_CASE("replies carry the status and the JSON of what came out") {
    CHECK(to_reply(VmmReply(Done{})).status == 204);
    CHECK(to_reply(VmmReply(Done{})).body.empty());

    const auto refused = to_reply(fail("a \"quoted\"\nreason"));
    CHECK(refused.status == 400);
    CHECK(refused.body == R"({"fault_message":"a \"quoted\"\u000areason"})");

    const auto info = to_reply(VmmReply(
        InstanceInfo{.id = "i-1", .state = VmState::Paused, .jail = {"rlimits", "seccomp"}}));
    CHECK(info.status == 200);
    auto body = *JsonObject::parse(info.body, "reply");
    CHECK(body.string("id") == "i-1");
    CHECK(body.string("state") == "Paused");
    CHECK(body.string("app_name") == "Masu");
    CHECK(body.string("jail") == "rlimits, seccomp");
    CHECK_FALSE(body.required_string("vmm_version").empty());
    CHECK(body.finish().has_value());

    CHECK(contains(to_reply(VmmReply(InstanceInfo{.id = "i-1"})).body, R"("jail":"none")"));

    auto version = *JsonObject::parse(to_reply(VmmReply(VersionInfo{})).body, "reply");
    CHECK_FALSE(version.required_string("firecracker_version").empty());

    CHECK(to_reply(VmmReply(MachineConfig{.huge_pages = HugePages::Explicit2M})).body ==
          R"({"vcpu_count":1,"mem_size_mib":128,"smt":false,"track_dirty_pages":false,)"
          R"("huge_pages":"2M"})");
    CHECK(to_reply(VmmReply(MachineConfig{.cpu_template = CpuTemplate::X86_64_v3}))
              .body.ends_with(R"("huge_pages":"None","cpu_template":"x86-64-v3"})"));
}

TEST_CASE("metrics are grouped, also when a group grew late") {
    MetricsReport report{.wall_time = 5'000'000,
                         .samples = {{"vcpu", "exits", 1}, {"uart", "out", 2}, {"vcpu", "io", 3}}};
    CHECK(to_reply(VmmReply(report)).body ==
          R"({"utc_timestamp_ms":5,"vcpu":{"exits":1,"io":3},"uart":{"out":2}})");
}

TEST_CASE("the boot timer shows only what was reached") {
    BootTimes times;
    times.since_start[0] = 0;
    times.since_start[1] = 1500;
    CHECK(to_reply(VmmReply(times)).body == R"({"process_start":0,"kvm_ready":1500})");
}

TEST_CASE("bytes of a path that are not UTF-8 still make valid JSON") {
    const auto body = error_body("error", "/tmp/\xff\xc3\xa4\xc3");
    CHECK(body == "{\"error\":\"/tmp/\\ufffd\xc3\xa4\\ufffd\"}");
    CHECK(JsonObject::parse(body, "reply").has_value());
}

TEST_CASE("rules are compiled before they replace any") {
    const auto put = [](std::string_view rule) {
        const auto body = fmt::format(R"({{"security_groups": ["sg-1"], "rules": [{}]}})", rule);
        return route({"PUT", "/network-interfaces/net0/security-groups", body});
    };
    const auto good = put(
        R"({"id": "a", "direction": "ingress", "protocol": "tcp", "from_port": 1, "to_port": 2,
            "cidr": "::/0"})");
    REQUIRE(good);
    const auto& set = std::get<action::SetSecurityGroups>(*good);
    CHECK(set.iface_id == "net0");
    CHECK(set.groups == std::vector<std::string>{"sg-1"});
    CHECK(set.rules->rules().size() == 1);
    const auto bad = put(
        R"({"id": "a", "direction": "ingress", "protocol": "tcp", "from_port": 2, "to_port": 1,
            "cidr": "::/0"})");
    REQUIRE_FALSE(bad);
    CHECK(contains(bad.error().message, "rule a"));
    const auto counters = route({"GET", "/network-interfaces/net0/firewall", ""});
    REQUIRE(counters);
    CHECK(std::get<action::GetFirewall>(*counters).iface_id == "net0");
}

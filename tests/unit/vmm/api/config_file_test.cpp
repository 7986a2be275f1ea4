// The config file: the sections of the API, and sentences about what is wrong with one.
#include "vmm/api/config_file.hpp"

#include <doctest/doctest.h>

#include <array>
#include <variant>

#include "vmm/api/bodies.hpp"
#include "vmm/config_check.hpp"

using namespace masu;
using namespace masu::api;

namespace {
std::string refusal(std::string_view text) {
    const auto result = parse_config(text, "/etc/vm.json");
    return result ? "accepted" : result.error().message;
}
}  // namespace

TEST_CASE("a full config becomes actions, the logger first") {
    const auto actions = parse_config(R"({
        "boot-source": {"kernel_image_path": "/k", "initrd_path": "/i", "boot_args": "quiet"},
        "drives": [{"drive_id": "a", "path_on_host": "/a", "is_root_device": true},
                   {"drive_id": "b", "path_on_host": "/b", "is_root_device": false}],
        "machine-config": {"vcpu_count": 4, "mem_size_mib": 6144},
        "entropy": {},
        "metrics": {"metrics_path": "/m"},
        "serial": {"serial_out_path": "/s"},
        "logger": {"log_path": "/l"}})",
                                      "vm.json");
    REQUIRE(actions.has_value());
    REQUIRE(actions->size() == 8);
    CHECK(std::holds_alternative<action::SetLogger>(actions->front()));
    CHECK(std::get<action::SetMachineConfig>((*actions)[2]).config.vcpu_count == 4);
    CHECK(*std::get<action::SetBootSource>((*actions)[3]).source.initrd_path == "/i");
    CHECK(std::get<action::SetDrive>((*actions)[5]).drive.drive_id == "b");
}

TEST_CASE("a stock config that asks for nothing else passes") {
    CHECK(parse_config(R"({"boot-source": {"kernel_image_path": "/k", "initrd_path": null},
                           "drives": [], "machine-config": null, "cpu-config": null,
                           "balloon": null, "network-interfaces": [], "vsock": null,
                           "logger": null, "metrics": null, "mmds-config": null,
                           "entropy": null, "pmem": [], "memory-hotplug": null})",
                       "vm.json")
              .has_value());
}

TEST_CASE("what is wrong is named with the file") {
    struct Bad {
        const char* text;
        const char* reason;
    };
    const auto bad = std::to_array<Bad>({
        {"", "not valid JSON"},
        {"{", "not valid JSON"},
        {"{\n\n  oops", "line 3"},
        {"[]", "must be a JSON object"},
        {"{}", "`boot-source` is missing"},
        {R"({"boot-source": {"kernel_image_path": "/k"}, "disks": []})", "unknown field `disks`"},
        {R"({"boot-source": {"kernel_image_path": "/k", "kernel": 1}})",
         "boot-source: unknown field `kernel`"},
        {R"({"boot-source": "/k"})", "`boot-source` must be an object"},
        {R"({"boot-source": {"kernel_image_path": "/k"}, "drives": {}})",
         "`drives` must be a list"},
        {R"({"boot-source": {"kernel_image_path": "/k"}, "drives": [1]})", "entry 0"},
        {R"({"boot-source": {"kernel_image_path": "/k"}, "drives": [{"drive_id": "a"}]})",
         "drives[0]"},
        {R"({"boot-source": {"kernel_image_path": "/k"}, "balloon": {"amount_mib": 3}})",
         "`balloon` is not supported"},
        {R"({"boot-source": {"kernel_image_path": "/k"}, "vsock": {"guest_cid": 3}})",
         "vsock: `uds_path` is missing"},
    });
    for (const auto& config : bad) {
        CAPTURE(config.text);
        const auto text = refusal(config.text);
        CHECK_MESSAGE(text.find(config.reason) != std::string::npos, text);
        CHECK_MESSAGE(text.find("/etc/vm.json") != std::string::npos, text);
    }
}

TEST_CASE("what GET /vm/config writes is a config file") {
    FullConfig config;
    config.vm.boot_source = BootSource{"/k", "/i", "a \"b\""};
    config.vm.drives.push_back(
        {.drive_id = "a",
         .is_root_device = true,
         .partuuid = "1-2",
         .path_on_host = "/a",
         .rate_limiter = {.bandwidth = TokenBucketConfig{1, 2, 3}, .ops = std::nullopt},
         .overlay_path = "/o",
         .overlay_size = 4096,
         .serial = "S",
         .direct = true});
    config.vm.entropy = EntropyConfig{};
    config.vm.vsock = VsockConfig{.guest_cid = 7, .uds_path = "/v"};
    config.logger = LoggerConfig{"/l", "info"};
    config.metrics = MetricsConfig{"/m", true, {{"k", "v"}}};
    config.serial_out_path = "/s";
    JsonWriter json;
    write(json, config);
    const auto actions = parse_config(json.text(), "round trip");
    REQUIRE_MESSAGE(actions.has_value(), json.text());
    REQUIRE(actions->size() == 8);
    const auto& vsock = std::get<action::SetVsock>((*actions)[6]).vsock;
    CHECK(vsock.guest_cid == 7);
    CHECK(vsock.uds_path == "/v");
    const auto& drive = std::get<action::SetDrive>((*actions)[4]).drive;
    CHECK(drive.rate_limiter == config.vm.drives[0].rate_limiter);
    CHECK(drive.overlay_path == "/o");
    CHECK(drive.overlay_size == 4096);
    CHECK(drive.direct);
    CHECK(std::get<action::SetBootSource>((*actions)[3]).source.boot_args == "a \"b\"");
}

TEST_CASE("a boot by the firmware is written and read back") {
    FullConfig config;
    BootSource source;
    source.firmware = true;
    source.boot_menu = true;
    source.boot_device = 2;
    source.boot_args = "quiet";
    config.vm.boot_source = source;
    JsonWriter json;
    write(json, config);
    const auto actions = parse_config(json.text(), "round trip");
    REQUIRE_MESSAGE(actions.has_value(), json.text());
    for (const auto& action : *actions) {
        const auto* set = std::get_if<action::SetBootSource>(&action);
        if (set == nullptr)
            continue;
        CHECK(set->source.firmware);
        CHECK(set->source.boot_menu);
        CHECK(set->source.boot_device == 2);
        CHECK(set->source.boot_args == "quiet");
        CHECK(check(set->source));
    }
}

TEST_CASE("a boot by the firmware has no kernel, and a kernel no firmware's settings") {
    BootSource source;
    source.firmware = true;
    CHECK(check(source));
    source.kernel_image_path = "/k";
    CHECK_FALSE(check(source));
    source = BootSource{"/k", std::nullopt, std::nullopt};
    source.boot_menu = true;
    CHECK_FALSE(check(source));
    VmConfig vm;
    vm.boot_source.emplace();
    vm.boot_source->firmware = true;
    CHECK_FALSE(check(vm));  // no drive
    vm.drives.push_back({.drive_id = "a", .path_on_host = "/a"});
    CHECK(check(vm));
    vm.boot_source->boot_device = 2;
    CHECK_FALSE(check(vm));
    vm.boot_source->boot_device = 1;
    vm.transport = Transport::Mmio;
    CHECK_FALSE(check(vm));
}

TEST_CASE("configurations are checked in one place") {
    CHECK(check(MachineConfig{}).has_value());
    CHECK_FALSE(check(MachineConfig{.vcpu_count = 0}).has_value());
    CHECK(check(MachineConfig{.vcpu_count = 32}).has_value());
    CHECK_FALSE(check(MachineConfig{.vcpu_count = 33}).has_value());
    CHECK_FALSE(check(MachineConfig{.vcpu_count = 3, .smt = true}).has_value());
    CHECK_FALSE(check(MachineConfig{.mem_size_mib = 63}).has_value());
    CHECK(check(MachineConfig{.mem_size_mib = 64}).has_value());
    CHECK_FALSE(check(MachineConfig{.mem_size_mib = ~0ULL}).has_value());
    CHECK_FALSE(
        check(MachineConfig{.mem_size_mib = 65, .huge_pages = HugePages::Explicit2M}).has_value());

    CHECK_FALSE(check(BootSource{}).has_value());
    CHECK(check(BootSource{"/k", {}, std::string(2047, 'a')}).has_value());
    CHECK_FALSE(check(BootSource{"/k", {}, std::string(2048, 'a')}).has_value());
    CHECK_FALSE(check(BootSource{"/k", {}, "a\nb"}).has_value());
    CHECK_FALSE(check(BootSource{"/k", "", {}}).has_value());

    const DriveConfig good{.drive_id = "a", .path_on_host = "/d"};
    CHECK(check(good).has_value());
    auto drive = good;
    drive.drive_id = "";
    CHECK_FALSE(check(drive).has_value());
    drive = good;
    drive.path_on_host = "";
    CHECK_FALSE(check(drive).has_value());
    drive = good;
    drive.partuuid = "1";
    CHECK_FALSE(check(drive).has_value());  // not the root device
    drive = good;
    drive.overlay_size = 4096;
    CHECK_FALSE(check(drive).has_value());  // of no overlay
    drive = good;
    drive.serial = std::string(21, 's');
    CHECK_FALSE(check(drive).has_value());
    drive = good;
    drive.overlay_path = "/d";
    CHECK_FALSE(check(drive).has_value());
    drive.overlay_path = "/o";
    CHECK(check(drive).has_value());
    drive.is_read_only = true;
    CHECK_FALSE(check(drive).has_value());
}

TEST_CASE("drives are replaced in place, the root device comes first and is the only one") {
    VmConfig vm;
    const auto drive = [](const char* id, bool root) {
        return DriveConfig{.drive_id = id, .is_root_device = root, .path_on_host = "/d"};
    };
    CHECK(insert_drive(vm, drive("a", false)).has_value());
    CHECK(insert_drive(vm, drive("b", false)).has_value());
    CHECK(insert_drive(vm, drive("r", true)).has_value());
    CHECK(vm.drives[0].drive_id == "r");
    CHECK_FALSE(insert_drive(vm, drive("a", true)).has_value());
    CHECK(vm.drives[1].drive_id == "a");
    auto replacement = drive("a", false);
    replacement.path_on_host = "/new";
    CHECK(insert_drive(vm, replacement).has_value());
    CHECK(vm.drives.size() == 3);
    CHECK(vm.drives[1].path_on_host == "/new");
    CHECK(insert_drive(vm, drive("r", false)).has_value());  // gives the place up
    CHECK(insert_drive(vm, drive("a", true)).has_value());
    for (std::size_t i = vm.drives.size(); i < max_drives; ++i)
        CHECK(insert_drive(vm, drive(fmt::format("d{}", i).c_str(), false)).has_value());
    CHECK_FALSE(insert_drive(vm, drive("one_more", false)).has_value());
}

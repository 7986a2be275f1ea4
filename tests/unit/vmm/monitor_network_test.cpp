// The monitor's network interfaces and the metadata they serve, on a fake machine.
#include "vmm/monitor.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/unit/vmm/monitor_bench.hpp"
#include "vmm/net/guest_network.hpp"

using namespace masu;
using namespace masu::fake;

TEST_CASE("an interface is opened when it is set, and kept over a reboot") {
    Bench bench;
    std::vector<Fd> others;
    auto first = on_socket("eth0", others);
    REQUIRE(bench.apply(action::SetNetworkInterface{first}));
    CHECK(bench.refusal(action::SetNetworkInterface{first}).find("in use") != std::string::npos);
    auto second = on_socket("eth1", others);
    second.guest_mac = "06:00:00:00:00:01";
    REQUIRE(bench.apply(action::SetNetworkInterface{second}));
    auto third = on_socket("eth2", others);
    third.guest_mac = "06:00:00:00:00:01";
    CHECK(bench.refusal(action::SetNetworkInterface{third}).find("eth1's already") !=
          std::string::npos);
    third.guest_mac = "06:00:00:00:00:02";
    third.network_mac = "06:00:00:00:00:01";
    CHECK(bench.refusal(action::SetNetworkInterface{third}).find("eth1's already") !=
          std::string::npos);
    third.network_mac = "03:00:00:00:00:01";
    CHECK(
        bench.refusal(action::SetNetworkInterface{third}).find("03:00:00:00:00:01 is a group's") !=
        std::string::npos);
    CHECK_FALSE(bench.apply(action::SetNetworkInterface{{.iface_id = "e", .passt_fd = 9999}}));
    CHECK_FALSE(bench.apply(action::SetNetworkInterface{{.iface_id = "e"}}));
    CHECK_FALSE(bench.apply(action::SetNetworkInterface{
        {.iface_id = "e", .guest_mac = "01:00:00:00:00:01", .passt_fd = 5}}));
    CHECK_FALSE(bench.apply(
        action::SetNetworkInterface{{.iface_id = "e", .host_dev_name = "a", .passt_fd = 5}}));
    CHECK_FALSE(
        bench.apply(action::SetNetworkInterface{{.iface_id = "e", .host_dev_name = "a/b"}}));

    bench.start();
    REQUIRE(bench.record.config.network_interfaces.size() == 2);
    // One was made up, and everybody sees the same.
    CHECK(bench.record.config.network_interfaces[0].guest_mac->starts_with("06:"));
    CHECK(bench.record.context->network.find("eth0") != nullptr);
    bench.pass(60);
    bench.stop(StopKind::Reset);
    CHECK(bench.record.count("create") == 2);
    CHECK(bench.record.context->network.find("eth0") != nullptr);
    CHECK_FALSE(bench.apply(action::SetNetworkInterface{first}));

    const TokenBucketConfig bucket{.size = 5, .refill_time_ms = 100};
    CHECK(bench.apply(action::PatchNetworkInterface{
        .iface_id = "eth1", .rx_rate_limiter = {}, .tx_rate_limiter = {.ops = bucket}}));
    CHECK(bench.record.calls.back() == "network limits eth1 tx");
    const auto config = std::get<FullConfig>(*bench.monitor.apply(action::GetVmConfig{}));
    CHECK(config.vm.network_interfaces[1].tx_rate_limiter.ops == bucket);
    CHECK_FALSE(bench.apply(action::PatchNetworkInterface{.iface_id = "no"}));
}

TEST_CASE("metadata: where it may be set, and by which of the two ways") {
    Bench bench;
    std::vector<Fd> others;
    CHECK(bench.apply(action::PutMmds{R"({"a": 1})"}));  // kept until it is served
    CHECK_FALSE(bench.apply(action::SetMmdsConfig{{.network_interfaces = {"eth0"}}}));
    REQUIRE(bench.apply(action::SetNetworkInterface{on_socket("eth0", others)}));
    CHECK_FALSE(bench.apply(action::SetMmdsConfig{}));
    CHECK_FALSE(bench.apply(
        action::SetMmdsConfig{{.network_interfaces = {"eth0"}, .ipv4_address = "10.0.0.1"}}));

    SUBCASE("mmds") {
        REQUIRE(bench.apply(action::SetMmdsConfig{{.network_interfaces = {"eth0"}}}));
        CHECK_FALSE(bench.apply(action::SetInstanceMetadata{}));
        bench.start();
        REQUIRE(bench.apply(action::PatchMmds{R"({"b": 2})"}));
        const auto reply = std::get<JsonText>(*bench.monitor.apply(action::GetMmds{}));
        CHECK(reply.text == R"({"a":1,"b":2})");
        CHECK_FALSE(bench.apply(action::SetMmdsConfig{{.network_interfaces = {"eth0"}}}));
    }
    SUBCASE("instance metadata") {
        InstanceMetadataConfig metadata{.network_interfaces = {"eth0"}};
        metadata.instance.instance_id = "i-1";
        metadata.instance.hostname = "web";
        REQUIRE(bench.apply(action::SetInstanceMetadata{metadata}));
        CHECK_FALSE(bench.apply(action::PutMmds{"{}"}));
        CHECK_FALSE(bench.apply(action::SetMmdsConfig{{.network_interfaces = {"eth0"}}}));
        bench.start();
        metadata.instance.hostname = "other";
        REQUIRE(bench.apply(action::SetInstanceMetadata{metadata}));
        const auto reply = std::get<JsonText>(*bench.monitor.apply(action::GetMmds{}));
        CHECK(reply.text.find(R"("hostname":"other")") != std::string::npos);
        metadata.network_interfaces = {"eth1"};
        CHECK_FALSE(bench.apply(action::SetInstanceMetadata{metadata}));
    }
    SUBCASE("none") {
        bench.start();
        CHECK_FALSE(bench.apply(action::PutMmds{"{}"}));
    }
}

TEST_CASE("flow logs show the account and instance of the metadata, or the account they are told") {
    Bench bench;
    std::vector<Fd> others;
    auto interface = on_socket("eth0", others);
    interface.firewall = true;
    REQUIRE(bench.apply(action::SetNetworkInterface{interface}));
    const auto path = (std::filesystem::temp_directory_path() /
                       ("masu-account-test-" + std::to_string(::getpid())))
                          .string();
    // A log that is replaced writes what its window holds.
    FlowLogConfig log{.path = path, .format = "${account-id} ${instance-id} ${log-status}"};
    const auto last_line = [&] {
        REQUIRE(bench.apply(action::SetFlowLog{.iface_id = "eth0", .config = log}));
        std::ifstream file(path);
        std::string line;
        for (std::string next; std::getline(file, next);)
            line = next;
        return line;
    };
    CHECK(last_line().empty());
    CHECK(last_line() == "- - NODATA");
    InstanceMetadataConfig metadata{.network_interfaces = {"eth0"}};
    metadata.instance.instance_id = "i-1";
    metadata.instance.hostname = "web";
    metadata.instance.account_id = "123456789012";
    REQUIRE(bench.apply(action::SetInstanceMetadata{metadata}));
    CHECK(last_line() == "- - NODATA");
    log.account_id = "999999999999";
    CHECK(last_line() == "123456789012 i-1 NODATA");
    CHECK(last_line() == "999999999999 i-1 NODATA");
    log.account_id = "12 4";
    CHECK_FALSE(bench.apply(action::SetFlowLog{.iface_id = "eth0", .config = log}));
    std::filesystem::remove(path);
}

TEST_CASE("bad instance metadata is refused") {
    Bench bench;
    std::vector<Fd> others;
    REQUIRE(bench.apply(action::SetNetworkInterface{on_socket("eth0", others)}));
    InstanceMetadataConfig good{.network_interfaces = {"eth0"}};
    good.instance.instance_id = "i-0123456789abcdef0";
    const auto refused = [&](auto change) {
        auto metadata = good;
        change(metadata);
        return !bench.apply(action::SetInstanceMetadata{metadata});
    };
    CHECK_FALSE(refused([](auto&) {}));
    CHECK(refused([](auto& m) { m.network_interfaces = {"eth9"}; }));
    CHECK(refused([](auto& m) { m.hop_limit = 0; }));
    CHECK(refused([](auto& m) { m.hop_limit = 65; }));
    CHECK(refused([](auto& m) { m.instance.instance_id = "x"; }));
    CHECK(refused([](auto& m) { m.instance.instance_id = "i-" + std::string(99, '0'); }));
    CHECK(refused([](auto& m) { m.instance.user_data = std::string(16385, 'x'); }));
    CHECK(refused([](auto& m) { m.instance.role = "r"; }));
    CHECK(refused([](auto& m) { m.instance.hostname = "a\nb"; }));
    for (const auto* id : {"", "12345678901", "1234567890123", "12345678901x", "123456 89012"}) {
        CAPTURE(id);
        CHECK(refused([&](auto& m) { m.instance.account_id = id; }));
    }
}

TEST_CASE("a guest network must hold together") {
    Bench bench;
    const auto refused = [&](const GuestNetworkConfig& network) {
        std::vector<Fd> others;
        auto interface = on_socket("eth0", others);
        interface.guest_network = network;
        const bool ok = bench.apply(action::SetNetworkInterface{interface});
        if (!ok)
            ::close(*interface.passt_fd);
        return !ok;
    };
    CHECK_FALSE(
        refused({.address = "172.31.0.10/20", .gateway = "172.31.0.1", .dns = {"1.1.1.1"}}));
    CHECK(refused({.address = "172.31.0.10"}));
    CHECK(refused({.address = "172.31.0.10/31"}));
    CHECK(refused({.address = "172.31.0.10/20", .gateway = "10.0.0.1"}));
    CHECK(refused({.address = "172.31.0.10/20", .local_gateway = true}));
    CHECK(refused({.address = "172.31.0.10/20", .dns = {"x"}}));
    CHECK(refused({.address = "172.31.0.10/20", .dns = {"::1", "::2", "::3", "::4"}}));
    CHECK(refused({.address = "172.31.0.10/20", .address6 = "10.0.0.1/8"}));
    CHECK(refused({.address = "172.31.0.10/20", .gateway6 = "fe80::1"}));
    CHECK(refused({.address = "172.31.0.10/20", .address6 = "fd00::1/64", .gateway6 = "fd00::2"}));
}

TEST_CASE("on a shared link the guest has its one address of the prefix, elsewhere all of it") {
    NetworkInterfaceConfig interface;
    interface.guest_network = GuestNetworkConfig{.address = "10.1.0.7/24",
                                                 .gateway = {},
                                                 .dns = {},
                                                 .address6 = "fd00:1::7/64",
                                                 .gateway6 = "fe80::1",
                                                 .local_gateway6 = true,
                                                 .hostname = {}};
    const net::MacAddress mac{6, 0, 0, 0, 0, 7};
    const auto alone = firewall_config(*service_config(interface, mac));
    CHECK(alone.delegated.size() == 1);
    interface.guest_network->shared_link = true;
    const auto shared = firewall_config(*service_config(interface, mac));
    CHECK(shared.delegated.empty());
    CHECK(shared.source_dest_check);
    CHECK(shared.addresses ==
          std::vector{*net::parse_address("10.1.0.7"), *net::parse_address("fd00:1::7")});
}

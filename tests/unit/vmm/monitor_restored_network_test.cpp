// What a loaded VM's network is: its flows, rules, MAC, address and metadata.
#include "vmm/monitor.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/unit/devices/net/fake_network.hpp"
#include "tests/unit/vmm/monitor_bench.hpp"

using namespace masu;
using namespace masu::fake;

namespace {

// Whether the guest's packet passes, on its way out.
bool passes(Bench& bench, net::Direction direction = net::Direction::Egress) {
    using namespace net::fake;
    auto frame = udp_frame(4);
    if (direction == net::Direction::Ingress)  // the answer to it
        frame = ethernet(guest_mac, other_mac, net::ethertype_ipv4) +
                ipv4(net::protocol_udp, 0x0a000002, 0x0a000001, 8) + ports(2000, 1000) + be16(8) +
                be16(0);
    auto* firewall = bench.record.context->network.find("eth0")->firewall();
    REQUIRE(firewall != nullptr);
    return firewall
               ->judge(direction, {frame, static_cast<std::uint32_t>(frame.size())},
                       bench.clock.now())
               .action == net::Action::Pass;
}

// A machine with an interface, metadata, and a connection that its firewall knows, saved.
void save_networked(const SavedVm& saved) {
    Bench bench;
    make_savable(bench.record);
    std::vector<Fd> others;
    auto interface = on_socket("eth0", others);
    interface.guest_mac = "06:00:00:00:00:01";
    interface.guest_network = {.address = "10.0.0.1/24", .hostname = "web"};
    REQUIRE(bench.apply(action::SetNetworkInterface{interface}));
    InstanceMetadataConfig metadata{.network_interfaces = {"eth0"}};
    metadata.instance.instance_id = "i-1";
    metadata.instance.hostname = "web";
    metadata.instance.user_data = "secret";
    metadata.instance.tags = {{"team", "a"}};
    metadata.instance.public_keys = {{.name = "k", .key = "ssh-ed25519 AAAA"}};
    metadata.instance.role = "r";
    metadata.instance.role_credentials = "{}";
    REQUIRE(bench.apply(action::SetInstanceMetadata{metadata}));
    REQUIRE(bench.apply(egress_only()));
    bench.start();
    REQUIRE(passes(bench));
    pause_and_save(bench, saved);
}

}  // namespace

TEST_CASE("a restored interface has its flows, and passes nothing before it has rules") {
    const SavedVm saved;
    save_networked(saved);
    Bench bench;
    std::vector<Fd> others;
    REQUIRE(bench.refusal(load_onto(saved, others)).empty());
    CHECK(bench.record.readdressed.empty());
    const auto& config = bench.record.config;
    REQUIRE(config.network_interfaces.size() == 1);
    CHECK(config.network_interfaces[0].guest_mac == "06:00:00:00:00:01");
    REQUIRE(config.metadata);
    CHECK(config.metadata->instance.instance_id == "i-1");
    CHECK(config.metadata->instance.user_data == "secret");
    CHECK(config.metadata->instance.tags.at("team") == "a");
    CHECK(config.metadata->instance.public_keys.at(0).key == "ssh-ed25519 AAAA");
    CHECK(config.metadata->instance.role_credentials == "{}");
    const auto shown = std::get<FullConfig>(*bench.monitor.apply(action::GetVmConfig{}));
    CHECK_FALSE(shown.secrets);
    CHECK_FALSE(passes(bench));
    CHECK_FALSE(passes(bench, net::Direction::Ingress));
    REQUIRE(bench.apply(egress_only()));
    CHECK(passes(bench, net::Direction::Ingress));
}

TEST_CASE("another machine has another name, and none of the old one's connections") {
    const SavedVm saved;
    save_networked(saved);
    Bench bench;
    std::vector<Fd> others;
    auto load = load_onto(saved, others);
    load.identity = {.instance_id = "i-2", .hostname = "clone"};
    REQUIRE(bench.refusal(load).empty());
    const auto& config = bench.record.config;
    CHECK(config.metadata->instance.instance_id == "i-2");
    CHECK(config.metadata->instance.user_data == "secret");
    CHECK(config.network_interfaces[0].guest_network->hostname == "clone");
    REQUIRE(bench.apply(egress_only()));
    CHECK_FALSE(passes(bench, net::Direction::Ingress));
    CHECK(passes(bench));
    CHECK(passes(bench, net::Direction::Ingress));
}

TEST_CASE("a guest keeps its MAC; another machine is known by one of its own, and stays so") {
    const SavedVm saved;
    save_networked(saved);
    std::vector<Fd> others;
    const auto loaded = [&](const action::LoadSnapshot& load,
                            const SavedVm* again = nullptr) -> NetworkInterfaceConfig {
        Bench bench;
        make_savable(bench.record);
        REQUIRE(bench.refusal(load).empty());
        auto interface = bench.record.config.network_interfaces[0];
        CHECK(interface.guest_mac == "06:00:00:00:00:01");
        if (again != nullptr)
            REQUIRE(bench.refusal(again->create()).empty());
        return interface;
    };
    auto load = load_onto(saved, others);
    CHECK_FALSE(loaded(load).network_mac);

    // From one instance id always the same, from another another.
    std::vector<std::string> made;
    for (const auto* id : {"i-2", "i-2", "i-3"}) {
        load = load_onto(saved, others);
        load.identity = {.instance_id = id, .hostname = "clone"};
        const auto mac = loaded(load).network_mac;
        REQUIRE(mac);
        CHECK(mac->starts_with("06:"));
        made.push_back(*mac);
    }
    CHECK(made[0] == made[1]);
    CHECK(made[0] != made[2]);

    // Saved again, both go along; a copy of the copy is again another.
    const SavedVm second;
    load = load_onto(saved, others);
    load.identity = {.instance_id = "i-2", .hostname = "clone"};
    load.interfaces[0].network_mac = "06:00:00:00:00:09";
    CHECK(loaded(load, &second).network_mac == "06:00:00:00:00:09");
    load = load_onto(second, others);
    CHECK(loaded(load).network_mac == "06:00:00:00:00:09");
    load = load_onto(second, others);
    load.identity = {.instance_id = "i-3", .hostname = "clone"};
    CHECK(loaded(load).network_mac == made[2]);
    load = load_onto(second, others);
    load.interfaces[0].network_mac = "06:00:00:00:00:01";  // the first one's, and the guest's
    CHECK_FALSE(loaded(load).network_mac);
}

TEST_CASE("a guest with another address is told so, and leaves its connections behind") {
    const SavedVm saved;
    save_networked(saved);
    Bench bench;
    std::vector<Fd> others;
    auto load = load_onto(saved, others);
    SUBCASE("another") {
        load.interfaces[0].guest_network = {.address = "10.0.0.9/24", .hostname = "web"};
        REQUIRE(bench.refusal(load).empty());
        CHECK(bench.record.readdressed == std::vector<std::string>{"eth0"});
        REQUIRE(bench.apply(egress_only()));
        CHECK_FALSE(passes(bench, net::Direction::Ingress));
        CHECK_FALSE(passes(bench));  // from the old address
    }
    SUBCASE("the same, said again") {
        load.interfaces[0].guest_network = {.address = "10.0.0.1/24", .hostname = "web"};
        REQUIRE(bench.refusal(load).empty());
        CHECK(bench.record.readdressed.empty());
    }
}

TEST_CASE(
    "a load that does not say what an interface is attached to is refused, and may be repeated") {
    const SavedVm saved;
    save_networked(saved);
    Bench bench;
    std::vector<Fd> others;
    CHECK(bench.refusal(saved.load()).contains("network_overrides"));
    auto load = load_onto(saved, others);
    load.interfaces[0].iface_id = "eth7";
    CHECK(bench.refusal(load).contains("no network interface eth7"));
    load.interfaces[0].iface_id = "eth0";
    load.interfaces.push_back(load.interfaces[0]);
    CHECK(bench.refusal(load).contains("twice"));
    load.interfaces.pop_back();
    bench.record.refuse_creation = true;
    CHECK(bench.refusal(load) == "no machine");
    bench.record.refuse_creation = false;
    CHECK(bench.refusal(load_onto(saved, others)).empty());
    Bench busy;
    REQUIRE(busy.apply(action::SetNetworkInterface{on_socket("eth0", others)}));
    CHECK(busy.refusal(load_onto(saved, others)).contains("into a monitor that has none"));
}

TEST_CASE("the metadata document is saved, and one that is there already is kept") {
    const SavedVm saved;
    std::vector<Fd> others;
    {
        Bench bench;
        make_savable(bench.record);
        REQUIRE(bench.apply(action::SetNetworkInterface{on_socket("eth0", others)}));
        REQUIRE(bench.apply(action::SetMmdsConfig{{.network_interfaces = {"eth0"}}}));
        REQUIRE(bench.apply(action::PutMmds{R"({"a":1})"}));
        bench.start();
        pause_and_save(bench, saved);
    }
    Bench bench;
    std::string expected = R"({"a":1})";
    SUBCASE("saved") {}
    SUBCASE("there already") {
        expected = R"({"b":2})";
        REQUIRE(bench.apply(action::PutMmds{expected}));
    }
    REQUIRE(bench.refusal(load_onto(saved, others)).empty());
    CHECK(std::get<JsonText>(*bench.monitor.apply(action::GetMmds{})).text == expected);
}

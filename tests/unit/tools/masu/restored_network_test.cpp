// The network that a restored or cloned VM gets: what options change, and what stays as saved.
#include "tools/masu/restored_network.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>

#include <boost/json.hpp>

namespace masu::cli {
namespace {

// A passt that can be found; nothing here starts it.
struct WithPasst {
    WithPasst() { ::setenv("MASU_PASST", "/bin/true", 1); }
    ~WithPasst() { ::setenv("MASU_PASST", "", 1); }
};

struct Choice {
    WithPasst passt;
    GroupBook book = *GroupBook::initial();
    VmRecord record;

    Choice() {
        record.name = "web";
        record.nets = {*parse_net_option("user")};
        record.ports = {*parse_published_port("8080:80")};
        record.security_groups = {(*book.find("default"))->id};
    }
    std::string refusal(const RestoredNetworkOptions& options, const RestoredAs& as = {}) {
        const auto chosen = choose_restored_network(options, book, as, record);
        return chosen ? "" : chosen.error().message;
    }
};

RestoredNetworkOptions nets(std::vector<std::string> texts) {
    RestoredNetworkOptions options;
    options.nets = std::move(texts);
    return options;
}
RestoredNetworkOptions ports(std::vector<std::string> texts) {
    RestoredNetworkOptions options;
    options.ports = std::move(texts);
    return options;
}
RestoredNetworkOptions groups(std::vector<std::string> names) {
    RestoredNetworkOptions options;
    options.security_groups = std::move(names);
    return options;
}

}  // namespace

TEST_CASE("a restored VM keeps its network and its ports, a clone publishes only what is given") {
    Choice restored;
    REQUIRE(restored.refusal({}).empty());
    CHECK(restored.record.ports.size() == 1);
    CHECK(restored.record.nets == std::vector{*parse_net_option("user")});

    Choice none;
    REQUIRE(none.refusal(ports({"none"})).empty());
    CHECK(none.record.ports.empty());

    Choice clone;
    REQUIRE(clone.refusal({}, {.clone = true, .number = 3}).empty());
    CHECK(clone.record.ports.empty());
    REQUIRE(clone.refusal(ports({"8080:80", "0.0.0.0:53:53/udp"}), {.clone = true, .number = 3})
                .empty());
    REQUIRE(clone.record.ports.size() == 2);
    CHECK(to_string(clone.record.ports[0]) == "127.0.0.1:8082:80/tcp");
    CHECK(to_string(clone.record.ports[1]) == "0.0.0.0:55:53/udp");
    CHECK(clone.refusal(ports({"65535:80"}), {.clone = true, .number = 2}).contains("65536"));
}

TEST_CASE("--net attaches an interface elsewhere, with a clone's number in its name") {
    Choice choice;
    choice.record.ports.clear();
    REQUIRE(choice
                .refusal(nets({"tap=web{n},address=10.0.{n}.2/24,gateway=10.0.{n}.1"}),
                         {.clone = true, .number = 12})
                .empty());
    const auto& net = choice.record.nets[0];
    CHECK(net.tap == "web12");
    CHECK(net.address == "10.0.12.2/24");
    const auto overrides = network_overrides(choice.record, {}, true, "web-12");
    REQUIRE(overrides.size() == 1);
    CHECK(overrides[0].at("iface_id").as_string() == "net0");
    CHECK(overrides[0].at("host_dev_name").as_string() == "web12");
    CHECK(overrides[0].at("guest_network").at("gateway").as_string() == "10.0.12.1");
    CHECK(overrides[0].at("guest_network").at("hostname").as_string() == "web-12");

    // Only another interface: the guest keeps its addresses.
    REQUIRE(choice.refusal(nets({"tap=other"})).empty());
    CHECK(choice.record.nets[0].tap == "other");
    CHECK(choice.record.nets[0].address == "10.0.12.2/24");
    const auto same = network_overrides(choice.record, {}, false, "web");
    CHECK_FALSE(same[0].as_object().contains("guest_network"));

    Choice user;
    std::vector<NetworkPort> ports(1);
    ports[0].descriptors.emplace_back(::dup(0));
    const auto passt = network_overrides(user.record, ports, false, "web");
    CHECK(passt[0].at("passt_fd").as_int64() == ports[0].descriptors[0].get());
    CHECK(passt[0].at("guest_network").at("address").as_string() == "172.31.0.10/20");
}

TEST_CASE("a restored VM's port of a network has a stream, or the queues of a TAP") {
    Choice lab;
    lab.record.nets = {*parse_net_option("network=lab")};
    // As joining the network fills them in.
    lab.record.nets[0].address = "10.1.0.5/24";
    lab.record.nets[0].mac = "06:07:0a:01:00:05";
    std::vector<NetworkPort> ports(1);
    ports[0].descriptors.emplace_back(::dup(0));
    auto overrides = network_overrides(lab.record, ports, false, "web");
    CHECK(overrides[0].at("passt_fd").as_int64() == ports[0].descriptors[0].get());
    CHECK(overrides[0].at("network_mac").as_string() == "06:07:0a:01:00:05");
    CHECK(overrides[0].at("guest_network").at("address").as_string() == "10.1.0.5/24");
    CHECK(overrides[0].at("guest_network").at("shared_link").as_bool());

    ports[0].is_tap = true;
    ports[0].descriptors.emplace_back(::dup(0));
    overrides = network_overrides(lab.record, ports, false, "web");
    CHECK(overrides[0].at("tap_fds").as_array().size() == 2);
    CHECK_FALSE(overrides[0].as_object().contains("passt_fd"));
}

TEST_CASE("on a network a restored VM wants its address back, a clone one of its own") {
    const auto saved_on = [](const char* network) {
        Choice choice;
        choice.record.ports.clear();
        choice.record.nets = {*parse_net_option(network)};
        choice.record.nets[0].address = "10.1.0.5/24";
        choice.record.nets[0].address6 = "fd00:1::5/64";
        choice.record.nets[0].mac = "06:07:0a:01:00:05";
        return choice;
    };
    const RestoredAs a_clone{.clone = true, .number = 2};
    auto lab = saved_on("network=lab");
    REQUIRE(lab.refusal({}).empty());
    CHECK(lab.record.nets[0].address == "10.1.0.5/24");
    CHECK(lab.record.nets[0].mac == "06:07:0a:01:00:05");
    REQUIRE(lab.refusal(nets({"network=lab"})).empty());
    CHECK(lab.record.nets[0].address == "10.1.0.5/24");
    REQUIRE(lab.refusal(nets({"network=other"})).empty());
    CHECK_FALSE(lab.record.nets[0].address);

    for (const auto& options : {nets({}), nets({"network=lab"}), nets({"network=other"})}) {
        lab = saved_on("network=lab");
        REQUIRE(lab.refusal(options, a_clone).empty());
        CHECK_FALSE(lab.record.nets[0].address);
        CHECK_FALSE(lab.record.nets[0].address6);
        CHECK_FALSE(lab.record.nets[0].mac);
    }
    lab = saved_on("network=lab");
    REQUIRE(lab.refusal(nets({"network=lab,address=10.1.0.10{n}"}), a_clone).empty());
    CHECK(lab.record.nets[0].address == "10.1.0.102");

    Choice tap;
    tap.record.ports.clear();
    tap.record.nets = {*parse_net_option("tap=t,mac=06:00:00:00:00:01,address=10.0.0.2/24")};
    REQUIRE(tap.refusal({}).empty());
    CHECK(tap.record.nets[0].mac == "06:00:00:00:00:01");
    REQUIRE(tap.refusal({}, a_clone).empty());
    CHECK_FALSE(tap.record.nets[0].mac);
    CHECK(tap.record.nets[0].address == "10.0.0.2/24");
}

TEST_CASE("a network that cannot be is refused with the reason") {
    const auto refused = [](const RestoredNetworkOptions& options) {
        return Choice().refusal(options);
    };
    CHECK(refused(nets({"none"})).contains("cannot be taken away"));
    CHECK(refused(nets({"user", "user"})).contains("given 2 times"));
    CHECK(refused(nets({"user,mtu=1400"})).contains("saved with"));
    CHECK(refused(nets({"bridge"})).contains("--net bridge"));
    CHECK(refused(nets({"tap=t"})).empty());
    auto both = nets({"tap=t"});
    both.ports = {"1:1"};
    CHECK(refused(both).contains("-p publishes"));
    CHECK(refused(ports({"x"})).contains("-p x"));
    CHECK(refused(groups({"gone"})).contains("NotFound"));

    Choice gone;
    gone.record.security_groups = {"sg-0123"};
    CHECK(gone.refusal({}).contains("sg-0123, which is gone"));
    CHECK(gone.refusal(groups({"default"})).empty());

    Choice plain;
    plain.record.nets.clear();
    RestoredNetworkOptions logs;
    logs.flow_logs.on = true;
    CHECK(plain.refusal(logs).contains("no network interface"));
    Choice without;
    ::setenv("MASU_PASST", "", 1);
    CHECK(without.refusal({}).contains("needs the program passt"));
}

}  // namespace masu::cli

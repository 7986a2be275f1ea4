// --net and -p: what is understood, what is refused, and what the monitor is asked for.
#include "tools/masu/net_option.hpp"

#include <doctest/doctest.h>

#include <boost/json.hpp>

#include "tools/masu/passt_process.hpp"

namespace masu::cli {

TEST_CASE("--net in its three kinds, with settings in any order") {
    CHECK(parse_net_option("none")->kind == NetOption::Kind::None);
    CHECK(*parse_net_option("user") == NetOption{.kind = NetOption::Kind::User});
    const auto tap = parse_net_option(
        "tap=masu0,dns=1.1.1.1,bw=10M,mac=06:00:00:AB:00:01,address=10.0.0.2/24,dns=8.8.8.8,"
        "gateway=10.0.0.1,mtu=1400,pps=5K");
    REQUIRE(tap);
    CHECK(tap->tap == "masu0");
    CHECK(tap->mac == "06:00:00:ab:00:01");
    CHECK(tap->address == "10.0.0.2/24");
    CHECK(tap->dns == std::vector<std::string>{"1.1.1.1", "8.8.8.8"});
    CHECK(tap->packets == 5120);
    CHECK(net_from_json(to_json(*tap)) == *tap);

    const auto request = interface_request(*tap, "net0", "web");
    CHECK(request.at("host_dev_name").as_string() == "masu0");
    CHECK(request.at("tx_rate_limiter").at("bandwidth").at("size").to_number<int>() ==
          10 * 1024 * 1024);
    CHECK(request.at("guest_network").at("hostname").as_string() == "web");
}

TEST_CASE("--net network=NAME, before and after the VM has joined") {
    auto net = parse_net_option("network=lab,address=10.1.0.7,pps=5K");
    REQUIRE(net);
    CHECK(net->kind == NetOption::Kind::Network);
    CHECK(net->network == "lab");
    CHECK(net_from_json(to_json(*net)) == *net);
    net->address = "10.1.0.7/24";
    net->address6 = "fd00:1::7/64";
    net->mac = "06:2a:0a:01:00:07";
    CHECK(net_from_json(to_json(*net)) == *net);
    const auto request = interface_request(*net, "net0", "web");
    const auto& guest = request.at("guest_network").as_object();
    CHECK(guest.at("address6").as_string() == "fd00:1::7/64");
    CHECK(guest.at("shared_link").as_bool());
    CHECK_FALSE(guest.contains("gateway"));
    CHECK_FALSE(request.contains("host_dev_name"));
}

TEST_CASE("a TAP has IPv6 beside IPv4") {
    const auto net = parse_net_option(
        "tap=t,address=10.0.0.2/24,address6=fd00::10/64,gateway6=fe80::1,dns=fd00::53");
    REQUIRE(net);
    CHECK(net_from_json(to_json(*net)) == *net);
    const auto network = interface_request(*net, "net0", "web").at("guest_network");
    CHECK(network.at("address6").as_string() == "fd00::10/64");
    CHECK(network.at("gateway6").as_string() == "fe80::1");
    CHECK(network.at("dns").at(0).as_string() == "fd00::53");
    for (const char* bad :
         {"tap=t,address6=fd00::10/64", "tap=t,address=10.0.0.2/24,address6=fd00::1",
          "tap=t,address=10.0.0.2/24,address6=10.0.0.3/24",
          "tap=t,address=10.0.0.2/24,address6=fd00::10/64,gateway6=fd00::1",
          "user,address6=fd00::10/64"})
        CHECK_MESSAGE(!parse_net_option(bad), bad);
}

TEST_CASE("a rate has a burst where one is asked for") {
    const auto net = parse_net_option("user,bw=1M,bw-burst=5M,pps=100,pps-burst=1000");
    REQUIRE(net);
    CHECK(net_from_json(to_json(*net)) == *net);
    const auto request = interface_request(*net, "net0", "web");
    for (const char* way : {"rx_rate_limiter", "tx_rate_limiter"}) {
        CHECK(request.at(way).at("bandwidth").at("one_time_burst").to_number<int>() ==
              5 * 1024 * 1024);
        CHECK(request.at(way).at("ops").at("one_time_burst").to_number<int>() == 1000);
    }
    CHECK_FALSE(interface_request(*parse_net_option("user,bw=1M"), "net0", "web")
                    .at("rx_rate_limiter")
                    .at("bandwidth")
                    .as_object()
                    .contains("one_time_burst"));
}

TEST_CASE("--net that makes no sense is refused with the reason") {
    for (const char* bad : {"network",
                            "network=",
                            "network=a,mac=06:00:00:00:00:01",
                            "network=a,address=10.0.0.2/24",
                            "network=a,gateway=10.0.0.1",
                            "",
                            "tap",
                            "tap=",
                            "bridge",
                            "none,mtu=1400",
                            "user,mtu",
                            "user,mtu=",
                            "user,mtu=5",
                            "user,mtu=70000",
                            "user,bw=0",
                            "user,mac=zz",
                            "user,mac=01:00:00:00:00:00",
                            "user,bw-burst=1M",
                            "user,bw=1M,pps-burst=5",
                            "user,bw=1M,bw-burst=0",
                            "user,address=10.0.0.2/24",
                            "user,colour=red",
                            "tap=t,address=10.0.0.2",
                            "tap=t,gateway=10.0.0.1",
                            "tap=t,address=10.0.0.2/24,gateway=x",
                            "tap=t,address=10.0.0.2/24,dns=1,dns=2"})
        CHECK_MESSAGE(!parse_net_option(bad), bad);
}

TEST_CASE("-p names a port on each side") {
    // Open to this machine alone, unless an address says otherwise.
    CHECK(*parse_published_port("8080:80") ==
          PublishedPort{.host_address = "127.0.0.1", .host = 8080, .guest = 80});
    CHECK(parse_published_port("0.0.0.0:8080:80")->host_address == "0.0.0.0");
    const auto port = parse_published_port("127.0.0.1:53:5353/udp");
    REQUIRE(port);
    CHECK(*port ==
          PublishedPort{.host_address = "127.0.0.1", .host = 53, .guest = 5353, .udp = true});
    CHECK(to_string(*port) == "127.0.0.1:53:5353/udp");
    for (const char* bad : {"", "80", "a:b", "0:80", "80:0", "80:70000", "80:80/sctp", "x:80:80",
                            "::1:80:80", "80:80/"})
        CHECK_MESSAGE(!parse_published_port(bad), bad);
}

}  // namespace masu::cli

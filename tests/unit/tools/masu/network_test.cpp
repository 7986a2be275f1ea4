// Networks of VMs: subnets that do not overlap, addresses that no two VMs have, and a file that
// survives.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>

#include <filesystem>
#include <set>
#include <thread>

#include <boost/json.hpp>

#include "base/atomic_file.hpp"
#include "tools/masu/network_store.hpp"

namespace masu::cli {
namespace {

struct TemporaryFolder {
    std::string path = "/tmp/masu-networks-test-XXXXXX";
    TemporaryFolder() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
    ~TemporaryFolder() { std::filesystem::remove_all(path); }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    [[nodiscard]] Store store() const { return Store({path, path + "/run"}); }
};

NetworkRecord network(const char* subnet, const char* subnet6 = nullptr) {
    NetworkRecord record{.name = "lab", .id = "0123456789abcdef", .subnet6 = {}, .leases = {}};
    record.subnet = *parse_subnet(subnet);
    if (subnet6 != nullptr)
        record.subnet6 = *parse_subnet6(subnet6);
    record.mac_byte = 0x2a;
    record.mtu = 1500;
    return record;
}

std::string given(NetworkRecord& record, std::optional<net::Address> wanted = {}) {
    const auto lease = give_lease(record, wanted, "vm", "id", "net0");
    return lease ? net::to_string(lease->addresses.ipv4) : lease.error().message;
}

void let_go(NetworkRecord& record, const char* address) {
    CHECK(std::erase_if(record.leases, [&](const Lease& lease) {
              return lease.addresses.ipv4 == *net::parse_address(address);
          }) == 1);
}

Result<> lease_in(const NetworkStore& networks, const VmRecord& vm, std::string& address) {
    return networks.change("lab", [&](NetworkRecord& record) -> Result<> {
        const auto lease = TRY(give_lease(record, {}, vm.name, vm.id, "net0"));
        address = net::to_string(lease.addresses.ipv4);
        return {};
    });
}

VmRecord vm_named(const char* name) {
    VmRecord record;
    record.name = name;
    return record;
}

}  // namespace

TEST_CASE("subnets are those of a VPC; others are refused with the reason") {
    CHECK(net::to_string(*parse_subnet("10.1.2.3/24")) == "10.1.2.0/24");
    CHECK(net::to_string(*parse_subnet6("fd00:1:2:3::9/64")) == "fd00:1:2:3::/64");
    for (const char* bad : {"", "10.0.0.0", "10.0.0.0/15", "10.0.0.0/29", "fd00::/64", "0.1.0.0/16",
                            "127.0.0.0/16", "169.254.0.0/16", "224.0.0.0/16", "255.255.0.0/24"})
        CHECK_MESSAGE(!parse_subnet(bad), bad);
    for (const char* bad :
         {"", "fd00::", "fd00::/63", "10.0.0.0/24", "fe80::/64", "ff02::/64", "::/64"})
        CHECK_MESSAGE(!parse_subnet6(bad), bad);
}

TEST_CASE("subnets that overlap are refused, in both families, and that of --net user") {
    const std::vector others{network("10.1.0.0/16", "fd00:1::/64")};
    CHECK(check_overlap(network("10.2.0.0/16", "fd00:2::/64"), others));
    CHECK_FALSE(check_overlap(network("10.1.9.0/24"), others));
    CHECK_FALSE(check_overlap(network("10.2.0.0/24", "fd00:1::/64"), others));
    CHECK_FALSE(check_overlap(network("172.31.8.0/24"), {}));
    std::vector<NetworkRecord> all;
    for (int i = 0; i < 256; ++i) {
        const auto subnet = free_subnet(all);
        REQUIRE(subnet);
        all.push_back(network(net::to_string(*subnet).c_str()));
    }
    CHECK(net::to_string(all[1].subnet) == "10.201.1.0/24");
    CHECK_FALSE(free_subnet(all));
}

TEST_CASE("each interface gets an address of its own; one let go of comes last") {
    auto record = network("10.1.0.0/28", "fd00:1::/64");
    CHECK(given(record) == "10.1.0.4");
    CHECK(given(record) == "10.1.0.5");
    let_go(record, "10.1.0.4");
    for (int host = 6; host <= 14; ++host)
        CHECK(given(record) == fmt::format("10.1.0.{}", host));
    CHECK(given(record) == "10.1.0.4");
    CHECK(given(record).contains("has no address left"));
    let_go(record, "10.1.0.9");
    CHECK(given(record) == "10.1.0.9");

    std::set<net::MacAddress> macs;
    std::set<net::Address> addresses;
    for (const auto& lease : record.leases) {
        macs.insert(lease.addresses.mac);
        addresses.insert(*lease.addresses.ipv6);
        // What the guest forms by itself from prefix and MAC.
        CHECK(lease.addresses.ipv6->low == net::link_local_of(lease.addresses.mac).low);
        CHECK(lease.addresses.ipv6->high == record.subnet6->address.high);
    }
    CHECK(macs.size() == record.leases.size());
    CHECK(addresses.size() == record.leases.size());
}

TEST_CASE("an address can be wished for, if it is there to be had") {
    auto record = network("10.1.0.0/24");
    const auto wish = [&](const char* text) { return given(record, *net::parse_address(text)); };
    CHECK(wish("10.1.0.77") == "10.1.0.77");
    CHECK(wish("10.1.0.77").contains("is in use by VM vm"));
    CHECK(wish("10.1.0.254") == "10.1.0.254");
    for (const char* bad : {"10.1.0.0", "10.1.0.3", "10.1.0.255", "10.1.1.4", "9.9.9.9"})
        CHECK_MESSAGE(wish(bad).contains("none of them"), bad);
    CHECK(given(record) == "10.1.0.4");
}

TEST_CASE("a record is what it was after a round through its file") {
    auto record = network("10.1.0.0/24", "fd00:1::/64");
    std::ignore = given(record);
    const auto text = boost::json::serialize(to_json(record));
    const auto read = parse_network_record(text, "f");
    REQUIRE(read);
    CHECK(boost::json::serialize(to_json(*read)) == text);
    for (std::size_t cut = 0; cut < text.size(); ++cut)
        CHECK_FALSE(parse_network_record(text.substr(0, cut), "f"));
}

TEST_CASE("an address is a VM's while its monitor lives, and nobody's after") {
    const TemporaryFolder folder;
    Store store = folder.store();
    const NetworkStore networks(store);
    REQUIRE(
        networks.create({.name = "lab", .subnet = "10.1.0.0/28", .subnet6 = "none", .mtu = 1500}));
    auto first = vm_named("first");
    auto second = vm_named("second");
    auto one = store.create(first);
    auto two = store.create(second);
    REQUIRE(one);
    REQUIRE(two);
    std::string a;
    std::string b;
    REQUIRE(lease_in(networks, first, a));
    REQUIRE(lease_in(networks, second, b));
    CHECK(a != b);
    CHECK(networks.find("lab")->leases.size() == 2);
    const auto refused = networks.remove("lab", [](const NetworkRecord&) {});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().message ==
          "network lab is in use by VM first and 1 more; end them first");

    one->lock.reset();  // the monitor dies
    CHECK(networks.find("lab")->leases.size() == 1);
    // A later VM of that name is another one.
    REQUIRE(store.remove("first"));
    auto later = vm_named("first");
    const auto three = store.create(later);
    REQUIRE(three);
    CHECK(networks.find("lab")->leases.size() == 1);
    two->lock.reset();
    bool told = false;
    REQUIRE(networks.remove("lab", [&](const NetworkRecord&) { told = true; }));
    CHECK(told);
    CHECK_FALSE(networks.find("lab"));
}

TEST_CASE("of many that join at one moment no two get one address") {
    const TemporaryFolder folder;
    const NetworkStore networks(folder.store());
    REQUIRE(networks.create({.name = "lab", .subnet = "10.1.0.0/24", .subnet6 = {}, .mtu = 1500}));
    constexpr int count = 16;
    std::array<std::string, count> got;
    std::array<std::optional<Store::Created>, count> alive;
    {
        std::vector<std::jthread> threads;
        for (int i = 0; i < count; ++i)
            threads.emplace_back([&, i] {
                auto store = folder.store();
                auto vm = vm_named(fmt::format("vm-{}", i).c_str());
                auto created = store.create(vm);
                if (!created)
                    return;
                alive[static_cast<std::size_t>(i)].emplace(*std::move(created));
                std::ignore = lease_in(networks, vm, got[static_cast<std::size_t>(i)]);
            });
    }
    const std::set<std::string> different(got.begin(), got.end());
    CHECK(different.size() == count);
    CHECK_FALSE(different.contains(""));
    CHECK(networks.find("lab")->leases.size() == count);
}

TEST_CASE("what cannot be is refused: names, doubles, a change that fails writes nothing") {
    const TemporaryFolder folder;
    const NetworkStore networks(folder.store());
    REQUIRE(networks.create({.name = "lab", .subnet = {}, .subnet6 = {}, .mtu = 1500}));
    CHECK_FALSE(networks.create({.name = "lab", .subnet = {}, .subnet6 = {}, .mtu = 1500}));
    CHECK_FALSE(networks.create({.name = "../x", .subnet = {}, .subnet6 = {}, .mtu = 1500}));
    CHECK_FALSE(
        networks.create({.name = "two", .subnet = "10.201.0.0/16", .subnet6 = {}, .mtu = 1500}));
    CHECK_FALSE(networks.find("two"));
    REQUIRE(networks.create({.name = "two", .subnet = {}, .subnet6 = {}, .mtu = 1500}));
    CHECK(networks.all()->size() == 2);
    CHECK_FALSE(networks.change("lab", [](NetworkRecord& record) -> Result<> {
        record.mtu = 9;
        return fail("no");
    }));
    CHECK(networks.find("lab")->mtu == 1500);
}

}  // namespace masu::cli

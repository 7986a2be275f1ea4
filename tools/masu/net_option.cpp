// Reading --net.
#include "tools/masu/net_option.hpp"

#include <boost/json.hpp>

#include "base/bytes.hpp"
#include "devices/net/firewall/address.hpp"
#include "devices/net/services/service_config.hpp"
#include "tools/masu/optional_members.hpp"

namespace masu::cli {
namespace {

constexpr std::uint64_t max_mtu = 65535;
constexpr std::size_t max_dns = 3;

std::vector<std::string_view> split(std::string_view text, char at) {
    std::vector<std::string_view> parts;
    for (;;) {
        const auto end = text.find(at);
        parts.push_back(text.substr(0, end));
        if (end == std::string_view::npos)
            return parts;
        text.remove_prefix(end + 1);
    }
}

Result<std::uint64_t> parse_number(std::string_view key, std::string_view text) {
    const auto value = parse_size(text);
    if (!value || *value == 0)
        return fail("--net: {}={} is not a whole number above 0", key, text);
    return *value;
}

Result<> check_address(std::string_view key, std::string_view text) {
    const auto address = net::parse_address(text);
    if (!address || address->family != net::Family::V4)
        return fail("--net: {}={} is not an IPv4 address", key, text);
    return {};
}

Result<> apply(NetOption& net, std::string_view key, std::string_view value) {
    const std::string text(value);
    if (key == "mac" && net.kind != NetOption::Kind::Network) {
        const auto mac = TRY(net::parse_mac(text));
        if ((mac[0] & 1) != 0 || mac == net::MacAddress())
            return fail("--net: mac={} is a group's address, or all zeros", value);
        net.mac = net::to_string(mac);
    } else if (key == "mtu") {
        net.mtu = TRY(parse_number(key, value));
        if (*net.mtu < 68 || *net.mtu > max_mtu)
            return fail("--net: mtu={} must be 68 to {}", value, max_mtu);
    } else if (key == "bw") {
        net.bandwidth = TRY(parse_number(key, value));
    } else if (key == "pps") {
        net.packets = TRY(parse_number(key, value));
    } else if (key == "bw-burst") {
        net.bandwidth_burst = TRY(parse_number(key, value));
    } else if (key == "pps-burst") {
        net.packets_burst = TRY(parse_number(key, value));
    } else if (key == "address" && net.kind == NetOption::Kind::Tap) {
        const auto prefix = net::parse_cidr(text);
        if (!prefix || prefix->address.family != net::Family::V4)
            return fail(
                "--net: address={} is not an IPv4 address with its prefix length, such as "
                "172.31.0.10/20",
                value);
        net.address = text;
    } else if (key == "address" && net.kind == NetOption::Kind::Network) {
        TRY(check_address(key, value));
        net.address = text;
    } else if (key == "gateway" && net.kind == NetOption::Kind::Tap) {
        TRY(check_address(key, value));
        net.gateway = text;
    } else if (key == "address6" && net.kind == NetOption::Kind::Tap) {
        const auto prefix = net::parse_cidr(text);
        if (!prefix || prefix->address.family != net::Family::V6)
            return fail(
                "--net: address6={} is not an IPv6 address with its prefix length, such as "
                "fd00:6d61::10/64",
                value);
        net.address6 = text;
    } else if (key == "gateway6" && net.kind == NetOption::Kind::Tap) {
        const auto address = net::parse_address(text);
        if (!address || !address->is_link_local_v6())
            return fail("--net: gateway6={} is not a link-local IPv6 address, such as fe80::1",
                        value);
        net.gateway6 = text;
    } else if (key == "dns" && net.kind == NetOption::Kind::Tap) {
        if (!net::parse_address(text))
            return fail("--net: dns={} is not an address", value);
        net.dns.push_back(text);
        if (net.dns.size() > max_dns)
            return fail("--net: {} DNS servers at most", max_dns);
    } else {
        return fail(
            "--net: unknown setting \"{}\"; known are mac=M, mtu=N, bw=SIZE, pps=N, bw-burst=SIZE "
            "and pps-burst=N, for a TAP also address=A/LENGTH, gateway=A, address6=A/LENGTH, "
            "gateway6=A and dns=A, and for a network address=A but no mac=",
            key);
    }
    return {};
}

std::string_view kind_text(NetOption::Kind kind) {
    switch (kind) {
        case NetOption::Kind::None:
            return "none";
        case NetOption::Kind::User:
            return "user";
        case NetOption::Kind::Tap:
            return "tap";
        case NetOption::Kind::Network:
            return "network";
    }
    return "none";
}

boost::json::object per_second(std::uint64_t rate, std::optional<std::uint64_t> burst) {
    boost::json::object bucket{{"size", rate}, {"refill_time", 1000}};
    if (burst)
        bucket["one_time_burst"] = *burst;
    return bucket;
}

}  // namespace

Result<NetOption> parse_net_option(std::string_view text) {
    const auto parts = split(text, ',');
    NetOption net;
    const auto kind = parts.front();
    if (kind == "none" && parts.size() == 1)
        return net;
    if (kind == "user") {
        net.kind = NetOption::Kind::User;
    } else if (kind.starts_with("tap=") && kind.size() > 4) {
        net.kind = NetOption::Kind::Tap;
        net.tap = kind.substr(4);
    } else if (kind.starts_with("network=") && kind.size() > 8) {
        net.kind = NetOption::Kind::Network;
        net.network = kind.substr(8);
    } else {
        return fail(
            "--net {}: must be user, network=NAME, tap=NAME or none, with settings after a comma",
            text);
    }
    for (std::size_t i = 1; i < parts.size(); ++i) {
        const auto equals = parts[i].find('=');
        if (equals == std::string_view::npos || equals + 1 == parts[i].size())
            return fail("--net {}: \"{}\" must have the form SETTING=VALUE", text, parts[i]);
        TRY(apply(net, parts[i].substr(0, equals), parts[i].substr(equals + 1)));
    }
    if (!net.address && (net.gateway || net.address6 || net.gateway6 || !net.dns.empty()))
        return fail(
            "--net {}: gateway=, address6=, gateway6= and dns= are told to the guest together with "
            "an address; "
            "add address=A/LENGTH",
            text);
    if ((net.bandwidth_burst && !net.bandwidth) || (net.packets_burst && !net.packets))
        return fail("--net {}: a burst is what may go beyond a limit; add {}", text,
                    net.bandwidth_burst && !net.bandwidth ? "bw=SIZE" : "pps=N");
    return net;
}

boost::json::object interface_request(const NetOption& net, std::string_view id,
                                      std::string_view hostname) {
    // Its security groups come next; until then nothing passes.
    boost::json::object request{{"iface_id", id}, {"firewall", true}};
    if (net.kind == NetOption::Kind::Tap)
        request["host_dev_name"] = net.tap;
    if (net.mac)
        request["guest_mac"] = *net.mac;
    if (net.mtu)
        request["mtu"] = *net.mtu;
    boost::json::object limits;
    if (net.packets)
        limits["ops"] = per_second(*net.packets, net.packets_burst);
    if (net.bandwidth)
        limits["bandwidth"] = per_second(*net.bandwidth, net.bandwidth_burst);
    if (!limits.empty()) {
        request["rx_rate_limiter"] = limits;
        request["tx_rate_limiter"] = std::move(limits);
    }
    if (net.address) {
        boost::json::object network{{"address", *net.address}, {"hostname", hostname}};
        if (net.gateway)
            network["gateway"] = *net.gateway;
        if (net.gateway6)
            network["gateway6"] = *net.gateway6;
        network["dns"] = boost::json::array(net.dns.begin(), net.dns.end());
        if (net.address6)
            network["address6"] = *net.address6;
        if (net.address6 && net.kind == NetOption::Kind::Network) {
            // Only the guest's own monitor ever hears of this router.
            network["gateway6"] = net::to_string(net::link_local_of(net::service_mac));
            network["local_gateway6"] = true;
        }
        if (net.kind == NetOption::Kind::Network)
            network["shared_link"] = true;
        request["guest_network"] = std::move(network);
    }
    return request;
}

boost::json::object to_json(const NetOption& net) {
    boost::json::object object{{"kind", kind_text(net.kind)}};
    if (net.kind == NetOption::Kind::Tap)
        object["tap"] = net.tap;
    if (net.kind == NetOption::Kind::Network)
        object["network"] = net.network;
    if (net.mac)
        object["mac"] = *net.mac;
    if (net.mtu)
        object["mtu"] = *net.mtu;
    if (net.address)
        object["address"] = *net.address;
    if (net.address6)
        object["address6"] = *net.address6;
    if (net.gateway)
        object["gateway"] = *net.gateway;
    if (net.gateway6)
        object["gateway6"] = *net.gateway6;
    object["dns"] = boost::json::array(net.dns.begin(), net.dns.end());
    if (net.bandwidth)
        object["bandwidth"] = *net.bandwidth;
    if (net.packets)
        object["packets"] = *net.packets;
    if (net.bandwidth_burst)
        object["bandwidth_burst"] = *net.bandwidth_burst;
    if (net.packets_burst)
        object["packets_burst"] = *net.packets_burst;
    return object;
}

NetOption net_from_json(const boost::json::object& object) {
    NetOption net;
    for (const auto kind : {NetOption::Kind::User, NetOption::Kind::Tap, NetOption::Kind::Network})
        if (object.at("kind").as_string() == kind_text(kind))
            net.kind = kind;
    net.tap = text_of(object, "tap").value_or("");
    net.network = text_of(object, "network").value_or("");
    net.mac = text_of(object, "mac");
    net.mtu = number_of(object, "mtu");
    net.address = text_of(object, "address");
    net.address6 = text_of(object, "address6");
    net.gateway = text_of(object, "gateway");
    net.gateway6 = text_of(object, "gateway6");
    for (const auto& server : object.at("dns").as_array())
        net.dns.emplace_back(server.as_string());
    net.bandwidth = number_of(object, "bandwidth");
    net.packets = number_of(object, "packets");
    net.bandwidth_burst = number_of(object, "bandwidth_burst");
    net.packets_burst = number_of(object, "packets_burst");
    return net;
}

}  // namespace masu::cli

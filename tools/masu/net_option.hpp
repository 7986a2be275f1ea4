// The --net option: what kind of network, its settings, and how it is put to the monitor.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/object.hpp>

#include "base/result.hpp"

namespace masu::cli {

// user[,SETTING]..., tap=NAME[,SETTING]..., network=NAME[,SETTING]... or none.
struct NetOption {
    enum class Kind { None, User, Tap, Network };
    Kind kind = Kind::None;
    std::string tap;                   // the interface's name, of kind Tap
    std::string network;               // the network's name, of kind Network
    std::optional<std::string> mac;    // as the network knows it; absent: one is made up
    std::optional<std::uint64_t> mtu;  // bytes
    // "172.31.0.10/20": the monitor hands it out by DHCP. Of kind Network the one wished for,
    // without a length, until the VM has joined.
    std::optional<std::string> address;
    // "fd00:6d61::10/64", beside an `address`. Of kind Network set once it has joined.
    std::optional<std::string> address6;
    std::optional<std::string> gateway;
    std::optional<std::string> gateway6;  // link-local, as routers are
    std::vector<std::string> dns;
    std::optional<std::uint64_t> bandwidth;  // bytes a second, each way
    std::optional<std::uint64_t> packets;    // a second, each way
    // Once, beyond the rate, until it is used up: bytes and packets.
    std::optional<std::uint64_t> bandwidth_burst;
    std::optional<std::uint64_t> packets_burst;
    bool operator==(const NetOption&) const = default;
};

[[nodiscard]] Result<NetOption> parse_net_option(std::string_view text);

// The body of PUT /network-interfaces/{id}; the backend's descriptor, of kinds User and Network, is
// the caller's to add.
[[nodiscard]] boost::json::object interface_request(const NetOption& net, std::string_view id,
                                                    std::string_view hostname);

// vm.json and back.
[[nodiscard]] boost::json::object to_json(const NetOption& net);
[[nodiscard]] NetOption net_from_json(const boost::json::object& object);  // throws on bad shape

}  // namespace masu::cli

// What the metadata service tells about an instance.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "devices/net/firewall/address.hpp"

namespace masu::net {

// 12 digits, as AWS has them.
[[nodiscard]] constexpr bool is_account_id(std::string_view text) noexcept {
    return text.size() == 12 &&
           std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

struct InstanceMetadata {
    struct PublicKey {
        std::string name;
        std::string key;  // "ssh-ed25519 AAAA... comment"
    };
    struct Interface {
        MacAddress mac{};
        std::optional<Address> ipv4;
        std::optional<std::string> subnet4;  // "172.31.0.0/20"
        std::optional<Address> ipv6;
        std::optional<std::string> subnet6;
    };
    std::string instance_id;  // "i-0123456789abcdef0"
    std::string instance_type = "t3.micro";
    std::string image_id = "ami-00000000000000000";
    std::string account_id = "000000000000";
    std::string region = "local";
    std::string availability_zone = "locala";
    std::string hostname;
    std::vector<PublicKey> public_keys;
    std::optional<std::string> user_data;  // raw bytes
    std::vector<std::string> security_groups;
    std::map<std::string, std::string> tags;      // shown only where there are any
    std::optional<std::string> role;              // of the credentials
    std::optional<std::string> role_credentials;  // JSON, served as it is
    std::string pending_time;                     // RFC 3339; when the instance began
    std::vector<Interface> interfaces;            // the first one is eth0
};

}  // namespace masu::net

// Network configurations as JSON.
#include "vmm/api/network_bodies.hpp"

#include <array>

#include "base/base64.hpp"
#include "vmm/api/bodies.hpp"

namespace masu::api {
namespace {

constexpr std::uint64_t max_mtu = 65535;
constexpr std::uint64_t max_descriptor = 1 << 20;

Result<RateLimiterConfig> limiter_or_none(JsonObject& body, std::string_view key) {
    return TRY(read_limiter(body, key)).value_or(RateLimiterConfig());
}

template <class T>
void optional_field(JsonWriter& json, std::string_view key, const std::optional<T>& value) {
    if (value)
        json.field(key, *value);
}

void write_strings(JsonWriter& json, std::string_view key, const std::vector<std::string>& texts) {
    json.key(key).begin_array();
    for (const auto& text : texts)
        json.value(text);
    json.end_array();
}

void write(JsonWriter& json, const GuestNetworkConfig& network) {
    json.begin_object().field("address", network.address);
    optional_field(json, "gateway", network.gateway);
    json.field("local_gateway", network.local_gateway);
    write_strings(json, "dns", network.dns);
    optional_field(json, "address6", network.address6);
    optional_field(json, "gateway6", network.gateway6);
    json.field("local_gateway6", network.local_gateway6);
    json.field("shared_link", network.shared_link);
    optional_field(json, "hostname", network.hostname);
    json.end_object();
}

void write_secrets(JsonWriter& json, const net::InstanceMetadata& instance) {
    json.field("pending_time", instance.pending_time);
    json.key("public_keys").begin_array();
    for (const auto& key : instance.public_keys)
        json.begin_object().field("name", key.name).field("key", key.key).end_object();
    json.end_array();
    if (instance.user_data)
        json.field("user_data", encode_base64(*instance.user_data));
    json.key("tags").begin_object();
    for (const auto& [name, value] : instance.tags)
        json.field(name, value);
    json.end_object();
    if (instance.role)
        json.key("iam")
            .begin_object()
            .field("role", *instance.role)
            .field("credentials", instance.role_credentials.value_or(""))
            .end_object();
}

}  // namespace

Result<std::optional<GuestNetworkConfig>> read_guest_network(JsonObject& owner) {
    auto body = owner.object("guest_network");
    if (!body)
        return std::optional<GuestNetworkConfig>();
    GuestNetworkConfig network;
    network.address = body->required_string("address");
    network.gateway = body->string("gateway");
    network.local_gateway = body->boolean("local_gateway").value_or(false);
    network.dns = body->strings("dns");
    network.address6 = body->string("address6");
    network.gateway6 = body->string("gateway6");
    network.local_gateway6 = body->boolean("local_gateway6").value_or(false);
    network.shared_link = body->boolean("shared_link").value_or(false);
    network.hostname = body->string("hostname");
    TRY(body->finish());
    return std::optional(std::move(network));
}

Result<NetworkInterfaceConfig> read_network_interface(JsonObject& body) {
    NetworkInterfaceConfig interface;
    interface.iface_id = body.required_string("iface_id");
    interface.host_dev_name = body.string("host_dev_name").value_or("");
    interface.guest_mac = body.string("guest_mac");
    if (const auto mtu = body.integer("mtu", max_mtu))
        interface.mtu = static_cast<std::uint16_t>(*mtu);
    interface.rx_rate_limiter = TRY(limiter_or_none(body, "rx_rate_limiter"));
    interface.tx_rate_limiter = TRY(limiter_or_none(body, "tx_rate_limiter"));
    for (const auto number : body.integers("tap_fds", max_descriptor))
        interface.tap_fds.push_back(static_cast<int>(number));
    if (const auto number = body.integer("passt_fd", max_descriptor))
        interface.passt_fd = static_cast<int>(*number);
    interface.network_mac = body.string("network_mac");
    interface.guest_network = TRY(read_guest_network(body));
    interface.firewall = body.boolean("firewall").value_or(false);
    TRY(body.finish());
    return interface;
}

Result<action::PatchNetworkInterface> read_network_interface_patch(JsonObject& body) {
    action::PatchNetworkInterface patch;
    patch.iface_id = body.required_string("iface_id");
    patch.rx_rate_limiter = TRY(limiter_or_none(body, "rx_rate_limiter"));
    patch.tx_rate_limiter = TRY(limiter_or_none(body, "tx_rate_limiter"));
    TRY(body.finish());
    return patch;
}

Result<MmdsConfig> read_mmds_config(JsonObject& body) {
    static constexpr std::array words{std::pair(std::string_view("V1"), false),
                                      std::pair(std::string_view("V2"), true)};
    MmdsConfig mmds;
    mmds.network_interfaces = body.strings("network_interfaces");
    mmds.version2 = body.choice<bool>("version", words).value_or(false);
    mmds.ipv4_address = body.string("ipv4_address").value_or(mmds.ipv4_address);
    mmds.imds_compat = body.boolean("imds_compat").value_or(false);
    TRY(body.finish());
    return mmds;
}

Result<InstanceMetadataConfig> read_instance_metadata(JsonObject& body) {
    static constexpr std::array words{std::pair(std::string_view("required"), true),
                                      std::pair(std::string_view("optional"), false)};
    constexpr std::size_t largest_text = 64 * std::size_t{1024};
    InstanceMetadataConfig metadata;
    auto& instance = metadata.instance;
    metadata.network_interfaces = body.strings("network_interfaces");
    metadata.tokens_required = body.choice<bool>("http_tokens", words).value_or(true);
    metadata.hop_limit = static_cast<unsigned>(body.integer("hop_limit", 255).value_or(2));
    instance.instance_id = body.required_string("instance_id");
    instance.hostname = body.required_string("hostname");
    const auto replace = [&](std::string_view key, std::string& text) {
        text = body.string(key).value_or(text);
    };
    replace("instance_type", instance.instance_type);
    replace("image_id", instance.image_id);
    replace("account_id", instance.account_id);
    replace("region", instance.region);
    replace("availability_zone", instance.availability_zone);
    instance.pending_time = body.string("pending_time").value_or("1970-01-01T00:00:00Z");
    for (auto& key : body.objects("public_keys")) {
        instance.public_keys.push_back(
            {.name = key.required_string("name", 128), .key = key.required_string("key", 16384)});
        TRY(key.finish());
    }
    if (const auto text = body.string("user_data", largest_text)) {
        instance.user_data = decode_base64(*text);
        if (!instance.user_data)
            body.complain("user_data", "is not base64");
    }
    instance.security_groups = body.strings("security_groups");
    instance.tags = body.string_map("tags");
    if (auto role = body.object("iam")) {
        instance.role = role->required_string("role", 64);
        instance.role_credentials = role->required_string("credentials", largest_text);
        TRY(role->finish());
    }
    TRY(body.finish());
    return metadata;
}

void write(JsonWriter& json, const InstanceMetadataConfig& metadata, bool secrets) {
    const auto& instance = metadata.instance;
    json.begin_object();
    write_strings(json, "network_interfaces", metadata.network_interfaces);
    json.field("http_tokens", metadata.tokens_required ? "required" : "optional")
        .field("hop_limit", metadata.hop_limit)
        .field("instance_id", instance.instance_id)
        .field("hostname", instance.hostname)
        .field("instance_type", instance.instance_type)
        .field("image_id", instance.image_id)
        .field("account_id", instance.account_id)
        .field("region", instance.region)
        .field("availability_zone", instance.availability_zone);
    write_strings(json, "security_groups", instance.security_groups);
    if (secrets)
        write_secrets(json, instance);
    json.end_object();
}

void write(JsonWriter& json, const NetworkInterfaceConfig& interface) {
    json.begin_object().field("iface_id", interface.iface_id);
    if (!interface.host_dev_name.empty())
        json.field("host_dev_name", interface.host_dev_name);
    optional_field(json, "guest_mac", interface.guest_mac);
    optional_field(json, "mtu", interface.mtu);
    write_limiter(json, interface.rx_rate_limiter, "rx_rate_limiter");
    write_limiter(json, interface.tx_rate_limiter, "tx_rate_limiter");
    if (!interface.tap_fds.empty()) {
        json.key("tap_fds").begin_array();
        for (const int number : interface.tap_fds)
            json.value(static_cast<unsigned>(number));
        json.end_array();
    }
    if (interface.passt_fd)
        json.field("passt_fd", static_cast<unsigned>(*interface.passt_fd));
    optional_field(json, "network_mac", interface.network_mac);
    if (interface.guest_network)
        write(json.key("guest_network"), *interface.guest_network);
    if (interface.firewall)
        json.field("firewall", true);
    json.end_object();
}

void write(JsonWriter& json, const MmdsConfig& mmds) {
    json.begin_object();
    write_strings(json, "network_interfaces", mmds.network_interfaces);
    json.field("version", mmds.version2 ? "V2" : "V1")
        .field("ipv4_address", mmds.ipv4_address)
        .field("imds_compat", mmds.imds_compat)
        .end_object();
}

}  // namespace masu::api

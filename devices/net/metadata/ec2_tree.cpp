// meta-data/, dynamic/ and user-data.
#include "devices/net/metadata/ec2_tree.hpp"

#include <fmt/format.h>

#include <boost/json.hpp>

namespace masu::net {
namespace {

namespace json = boost::json;

std::string joined(const std::vector<std::string>& lines) {
    std::string text;
    for (const auto& line : lines)
        text += (text.empty() ? "" : "\n") + line;
    return text;
}

// "i-0abc" -> "eni-0abc", and so on for what has no identity of its own here.
std::string derived_id(std::string_view prefix, const InstanceMetadata& instance) {
    const auto dash = instance.instance_id.find('-');
    return fmt::format(
        "{}-{}", prefix,
        dash == std::string::npos ? instance.instance_id : instance.instance_id.substr(dash + 1));
}

json::object public_keys(const InstanceMetadata& instance) {
    json::object keys;
    for (std::size_t i = 0; i < instance.public_keys.size(); ++i)
        keys[fmt::format("{}={}", i, instance.public_keys[i].name)] =
            json::object{{"openssh-key", instance.public_keys[i].key}};
    return keys;
}

json::object interface_tree(const InstanceMetadata& instance, std::size_t index) {
    const auto& interface = instance.interfaces[index];
    json::object tree{{"device-number", std::to_string(index)},
                      {"interface-id", derived_id(fmt::format("eni-{}", index), instance)},
                      {"local-hostname", instance.hostname},
                      {"mac", to_string(interface.mac)},
                      {"owner-id", instance.account_id},
                      {"subnet-id", "subnet-00000000000000000"},
                      {"vpc-id", "vpc-00000000000000000"}};
    if (interface.ipv4)
        tree["local-ipv4s"] = to_string(*interface.ipv4);
    if (interface.subnet4) {
        tree["subnet-ipv4-cidr-block"] = *interface.subnet4;
        tree["vpc-ipv4-cidr-block"] = *interface.subnet4;
        tree["vpc-ipv4-cidr-blocks"] = *interface.subnet4;
    }
    if (interface.ipv6)
        tree["ipv6s"] = to_string(*interface.ipv6);
    if (interface.subnet6) {
        tree["subnet-ipv6-cidr-blocks"] = *interface.subnet6;
        tree["vpc-ipv6-cidr-blocks"] = *interface.subnet6;
    }
    if (!instance.security_groups.empty())
        tree["security-groups"] = joined(instance.security_groups);
    return tree;
}

json::object meta_data(const InstanceMetadata& instance) {
    json::object tree{
        {"ami-id", instance.image_id},
        {"ami-launch-index", "0"},
        {"ami-manifest-path", "(unknown)"},
        {"block-device-mapping", json::object{{"ami", "/dev/vda"}, {"root", "/dev/vda"}}},
        {"hostname", instance.hostname},
        {"instance-action", "none"},
        {"instance-id", instance.instance_id},
        {"instance-life-cycle", "on-demand"},
        {"instance-type", instance.instance_type},
        {"local-hostname", instance.hostname},
        {"placement", json::object{{"availability-zone", instance.availability_zone},
                                   {"region", instance.region}}},
        {"profile", "default-hvm"},
        {"reservation-id", derived_id("r", instance)},
        {"services", json::object{{"domain", "amazonaws.com"}, {"partition", "aws"}}}};
    if (!instance.public_keys.empty())
        tree["public-keys"] = public_keys(instance);
    if (!instance.security_groups.empty())
        tree["security-groups"] = joined(instance.security_groups);
    if (!instance.tags.empty()) {
        json::object tags;
        for (const auto& [name, value] : instance.tags)
            tags[name] = value;
        tree["tags"] = json::object{{"instance", std::move(tags)}};
    }
    if (instance.role && instance.role_credentials)
        tree["iam"] = json::object{
            {"security-credentials", json::object{{*instance.role, *instance.role_credentials}}}};
    json::object macs;
    for (std::size_t i = 0; i < instance.interfaces.size(); ++i)
        macs[to_string(instance.interfaces[i].mac)] = interface_tree(instance, i);
    if (!macs.empty()) {
        const auto& first = instance.interfaces.front();
        tree["mac"] = to_string(first.mac);
        if (first.ipv4)
            tree["local-ipv4"] = to_string(*first.ipv4);
        if (first.ipv6)
            tree["ipv6"] = to_string(*first.ipv6);
        tree["network"] = json::object{{"interfaces", json::object{{"macs", std::move(macs)}}}};
    }
    return tree;
}

std::string identity_document(const InstanceMetadata& instance) {
    json::object document{{"accountId", instance.account_id},
                          {"architecture", "x86_64"},
                          {"availabilityZone", instance.availability_zone},
                          {"billingProducts", nullptr},
                          {"devpayProductCodes", nullptr},
                          {"marketplaceProductCodes", nullptr},
                          {"imageId", instance.image_id},
                          {"instanceId", instance.instance_id},
                          {"instanceType", instance.instance_type},
                          {"kernelId", nullptr},
                          {"pendingTime", instance.pending_time},
                          {"privateIp", nullptr},
                          {"ramdiskId", nullptr},
                          {"region", instance.region},
                          {"version", "2017-09-30"}};
    if (!instance.interfaces.empty() && instance.interfaces.front().ipv4)
        document["privateIp"] = to_string(*instance.interfaces.front().ipv4);
    return json::serialize(document);
}

}  // namespace

json::value make_ec2_tree(const InstanceMetadata& instance) {
    json::object tree{
        {"dynamic", json::object{{"fws", json::object{{"instance-monitoring", "disabled"}}},
                                 {"instance-identity",
                                  json::object{{"document", identity_document(instance)}}}}},
        {"meta-data", meta_data(instance)}};
    if (instance.user_data)
        tree["user-data"] = *instance.user_data;
    return tree;
}

}  // namespace masu::net

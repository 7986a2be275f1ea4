// The tree that EC2's metadata service shows, made from what is known about an instance.
#pragma once

#include <boost/json/value.hpp>

#include "devices/net/metadata/instance.hpp"

namespace masu::net {

// No key without a value: clients fetch every name that is listed.
[[nodiscard]] boost::json::value make_ec2_tree(const InstanceMetadata& instance);

}  // namespace masu::net

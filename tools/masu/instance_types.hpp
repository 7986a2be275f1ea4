// The EC2 instance types whose size --type stands for.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace masu::cli {

struct InstanceType {
    std::string_view name;
    unsigned vcpus;
    std::uint64_t memory_mib;
};

// Every type known here, by family and size; none has more vCPUs than a VM can have.
[[nodiscard]] std::span<const InstanceType> instance_types();
[[nodiscard]] std::optional<InstanceType> find_instance_type(std::string_view name);

}  // namespace masu::cli

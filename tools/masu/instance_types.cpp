// vCPUs and memory of common EC2 instance types, as AWS publishes them.
#include "tools/masu/instance_types.hpp"

#include <algorithm>
#include <array>

#include "vmm/config.hpp"

namespace masu::cli {
namespace {

constexpr auto types = std::to_array<InstanceType>({
    {"t2.nano", 1, 512},         {"t2.micro", 1, 1024},       {"t2.small", 1, 2048},
    {"t2.medium", 2, 4096},      {"t2.large", 2, 8192},       {"t2.xlarge", 4, 16384},
    {"t2.2xlarge", 8, 32768},    {"t3.nano", 2, 512},         {"t3.micro", 2, 1024},
    {"t3.small", 2, 2048},       {"t3.medium", 2, 4096},      {"t3.large", 2, 8192},
    {"t3.xlarge", 4, 16384},     {"t3.2xlarge", 8, 32768},    {"t3a.nano", 2, 512},
    {"t3a.micro", 2, 1024},      {"t3a.small", 2, 2048},      {"t3a.medium", 2, 4096},
    {"t3a.large", 2, 8192},      {"t3a.xlarge", 4, 16384},    {"t3a.2xlarge", 8, 32768},
    {"m5.large", 2, 8192},       {"m5.xlarge", 4, 16384},     {"m5.2xlarge", 8, 32768},
    {"m5.4xlarge", 16, 65536},   {"m5.8xlarge", 32, 131072},  {"m5a.large", 2, 8192},
    {"m5a.xlarge", 4, 16384},    {"m5a.2xlarge", 8, 32768},   {"m5a.4xlarge", 16, 65536},
    {"m5a.8xlarge", 32, 131072}, {"m6i.large", 2, 8192},      {"m6i.xlarge", 4, 16384},
    {"m6i.2xlarge", 8, 32768},   {"m6i.4xlarge", 16, 65536},  {"m6i.8xlarge", 32, 131072},
    {"c5.large", 2, 4096},       {"c5.xlarge", 4, 8192},      {"c5.2xlarge", 8, 16384},
    {"c5.4xlarge", 16, 32768},   {"c5a.large", 2, 4096},      {"c5a.xlarge", 4, 8192},
    {"c5a.2xlarge", 8, 16384},   {"c5a.4xlarge", 16, 32768},  {"c5a.8xlarge", 32, 65536},
    {"c6i.large", 2, 4096},      {"c6i.xlarge", 4, 8192},     {"c6i.2xlarge", 8, 16384},
    {"c6i.4xlarge", 16, 32768},  {"c6i.8xlarge", 32, 65536},  {"r5.large", 2, 16384},
    {"r5.xlarge", 4, 32768},     {"r5.2xlarge", 8, 65536},    {"r5.4xlarge", 16, 131072},
    {"r5.8xlarge", 32, 262144},  {"r6i.large", 2, 16384},     {"r6i.xlarge", 4, 32768},
    {"r6i.2xlarge", 8, 65536},   {"r6i.4xlarge", 16, 131072}, {"r6i.8xlarge", 32, 262144},
});
static_assert(std::ranges::all_of(types, [](const auto& type) { return type.vcpus <= max_vcpus; }));

}  // namespace

std::span<const InstanceType> instance_types() {
    return types;
}

std::optional<InstanceType> find_instance_type(std::string_view name) {
    const auto found = std::ranges::find(types, name, &InstanceType::name);
    return found == types.end() ? std::nullopt : std::optional(*found);
}

}  // namespace masu::cli

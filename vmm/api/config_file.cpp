// Reading the config file.
#include "vmm/api/config_file.hpp"

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "vmm/api/bodies.hpp"
#include "vmm/api/network_bodies.hpp"

namespace masu::api {

Result<std::vector<VmmAction>> parse_config(std::string_view text, const std::string& path) {
    auto file = TRY(JsonObject::parse(text, fmt::format("config file {}", path)));
    std::vector<VmmAction> actions;
    // The logger first, so that it hears of all that follows.
    if (auto section = file.object("logger"))
        actions.emplace_back(action::SetLogger{TRY(read_logger(*section))});
    if (auto section = file.object("metrics"))
        actions.emplace_back(action::SetMetrics{TRY(read_metrics(*section))});
    if (auto section = file.object("machine-config"))
        actions.emplace_back(action::SetMachineConfig{TRY(read_machine_config(*section))});
    if (auto section = file.object("boot-source"))
        actions.emplace_back(action::SetBootSource{TRY(read_boot_source(*section))});
    else
        file.complain("boot-source", "is missing");
    for (auto& section : file.objects("drives"))
        actions.emplace_back(action::SetDrive{TRY(read_drive(section))});
    for (auto& section : file.objects("network-interfaces"))
        actions.emplace_back(action::SetNetworkInterface{TRY(read_network_interface(section))});
    if (auto section = file.object("mmds-config"))
        actions.emplace_back(action::SetMmdsConfig{TRY(read_mmds_config(*section))});
    if (auto section = file.object("instance-metadata"))
        actions.emplace_back(action::SetInstanceMetadata{TRY(read_instance_metadata(*section))});
    if (auto section = file.object("entropy"))
        actions.emplace_back(action::SetEntropy{TRY(read_entropy(*section))});
    if (auto section = file.object("vsock"))
        actions.emplace_back(action::SetVsock{TRY(read_vsock(*section))});
    if (auto section = file.object("serial"))
        actions.emplace_back(TRY(read_serial(*section)));
    for (const auto* key : {"balloon", "cpu-config", "memory-hotplug", "pmem"})
        file.expect_nothing(key, "is not supported by this version of Masu");
    TRY(file.finish());
    return actions;
}

Result<std::vector<VmmAction>> read_config_file(const std::string& path) {
    auto text = read_file(path, 1 * MiB);
    if (!text)
        return in_context("config file", std::move(text.error()));
    return parse_config(*text, path);
}

}  // namespace masu::api

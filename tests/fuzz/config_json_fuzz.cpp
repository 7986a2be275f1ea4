// The config file and the bodies of requests: arbitrary text. What is accepted must survive being
// written and read again.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "vmm/api/bodies.hpp"
#include "vmm/api/config_file.hpp"
#include "vmm/config_check.hpp"

using namespace masu;

namespace {

// The configuration that the actions amount to, without what check() refuses.
FullConfig collect(const std::vector<VmmAction>& actions) {
    FullConfig config;
    for (const auto& action : actions) {
        if (const auto* machine = std::get_if<action::SetMachineConfig>(&action))
            config.vm.machine = machine->config;
        if (const auto* boot = std::get_if<action::SetBootSource>(&action))
            config.vm.boot_source = boot->source;
        if (const auto* drive = std::get_if<action::SetDrive>(&action))
            if (check(drive->drive))
                std::ignore = insert_drive(config.vm, drive->drive);
        if (const auto* entropy = std::get_if<action::SetEntropy>(&action))
            config.vm.entropy = entropy->entropy;
        if (const auto* logger = std::get_if<action::SetLogger>(&action))
            config.logger = logger->logger;
        if (const auto* metrics = std::get_if<action::SetMetrics>(&action))
            config.metrics = metrics->metrics;
        if (const auto* serial = std::get_if<action::SetSerial>(&action))
            config.serial_out_path = serial->serial_out_path;
    }
    return config;
}

std::string written(const FullConfig& config) {
    api::JsonWriter json;
    api::write(json, config);
    return json.text();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string text(data, data + size);
    const auto actions = api::parse_config(text, "fuzz");
    if (!actions)
        return 0;
    const auto config = collect(*actions);
    std::ignore = check(config.vm);
    const auto once = written(config);
    const auto again = api::parse_config(once, "written");
    if (!again || written(collect(*again)) != once)
        std::abort();
    return 0;
}

// Gives a machine its devices, and changes those that may change while it runs.
#include <utility>

#include "devices/virtio/rng.hpp"
#include "vmm/kvm_machine.hpp"

namespace masu {
namespace {

block::OpenOptions open_options(const DriveConfig& drive) {
    return {.path = drive.path_on_host,
            .read_only = drive.is_read_only,
            .direct = drive.direct,
            .force_sync = drive.io_engine == IoEngine::Sync,
            .overlay = drive.overlay_path.value_or(""),
            .overlay_size = drive.overlay_size.value_or(0),
            .overlay_synced = !drive.overlay_dies_with_vm};
}

}  // namespace

Result<> KvmMachine::make_devices(const VmConfig& config) {
    platform_ = TRY(Platform::create(ports_, mmio_, routes_->ioapic(), context_.loop, clock_,
                                     context_.metrics, context_.console_output, platform_events()));
    transport_ = config.transport;
    virtio_ = TRY(VirtioDevices::create({.transport = config.transport,
                                         .memory = memory_,
                                         .loop = context_.loop,
                                         .ports = ports_,
                                         .mmio = mmio_,
                                         .vm = *vm_,
                                         .routes = *routes_,
                                         .ioapic = platform_->ioapic(),
                                         .metrics = context_.metrics,
                                         .log = context_.log}));
    for (const auto& drive : config.drives)
        TRY(add_drive(drive, config.machine.vcpu_count));
    for (const auto& interface : config.network_interfaces)
        TRY(add_interface(interface.iface_id, config));
    if (config.vsock) {
        if (context_.vsock == nullptr)
            return fail("the vsock has no socket on the host");
        auto device =
            TRY(context_.vsock->make_device(context_.loop, context_.log, context_.metrics, clock_));
        vsock_ = device.get();
        TRY(virtio_->attach("vsock", std::move(device)));
    }
    if (config.entropy) {
        auto rng = TRY(virtio::Rng::create(to_limits(config.entropy->rate_limiter), context_.loop,
                                           clock_, context_.metrics));
        TRY(virtio_->attach("entropy", std::move(rng)));
    }
    return {};
}

Result<std::unique_ptr<block::Disk>> KvmMachine::open_disk(const DriveConfig& drive) {
    auto options = open_options(drive);
    options.late_engine = source_.has_value();
    options.warn = [log = context_.log, id = drive.drive_id](const std::string& warning) {
        log.warn(warning, {kv("drive", id)});
    };
    auto opened = block::open_disk(options);
    if (!opened)
        return in_context(fmt::format("drive {}", drive.drive_id), std::move(opened).error());
    for (const auto& warning : opened->warnings)
        options.warn(warning);
    context_.log.info("disk opened", {kv("drive", drive.drive_id), kv("path", drive.path_on_host),
                                      kv("engine", opened->engine)});
    return std::move(opened->disk);
}

Result<> KvmMachine::add_drive(const DriveConfig& drive, unsigned vcpu_count) {
    block::VirtioBlock::Options options{.read_only = drive.is_read_only,
                                        .cache = drive.cache_type == CacheType::Unsafe
                                                     ? block::VirtioBlock::Cache::Unsafe
                                                     : block::VirtioBlock::Cache::Writeback,
                                        .serial = drive.serial.value_or(""),
                                        .num_queues = static_cast<std::uint16_t>(vcpu_count),
                                        .limits = to_limits(drive.rate_limiter)};
    auto disk = TRY(open_disk(drive));
    auto device = TRY(block::VirtioBlock::create(
        drive.drive_id, std::move(disk), std::move(options), context_.loop,
        context_.log.with_component("block"), context_.metrics, clock_));
    drives_.emplace(drive.drive_id, Drive{device.get(), drive});
    return virtio_->attach(drive.drive_id, std::move(device));
}

Result<> KvmMachine::add_interface(const std::string& iface_id, const VmConfig& config) {
    auto* interface = context_.network.find(iface_id);
    if (interface == nullptr)
        return fail("interface {} has no backend", iface_id);
    auto device = TRY(interface->make_device(config, context_.network.store(),
                                             {.loop = context_.loop,
                                              .log = context_.log,
                                              .metrics = context_.metrics,
                                              .clock = clock_}));
    interfaces_.emplace(iface_id, device.get());
    return virtio_->attach(iface_id, std::move(device));
}

Result<> KvmMachine::update_network_limits(const std::string& iface_id, const RateLimiterConfig& rx,
                                           const RateLimiterConfig& tx) {
    const auto found = interfaces_.find(iface_id);
    if (found == interfaces_.end())
        return fail("there is no interface '{}'", iface_id);
    found->second->update_limits(to_limits(rx), to_limits(tx));
    return {};
}

Result<KvmMachine::Drive*> KvmMachine::find_drive(const std::string& drive_id) {
    const auto found = drives_.find(drive_id);
    if (found == drives_.end())
        return fail("there is no drive '{}'", drive_id);
    return &found->second;
}

Result<> KvmMachine::update_drive(const std::string& drive_id, const std::string& path) {
    auto& drive = *TRY(find_drive(drive_id));
    if (path.empty() || path == drive.config.path_on_host) {
        std::ignore = TRY(drive.device->refresh_size());
        return {};
    }
    if (drive.config.overlay_path)
        return fail("drive '{}' has an overlay, which belongs to its base; its path cannot change",
                    drive_id);
    auto config = drive.config;
    config.path_on_host = path;
    auto disk = TRY(open_disk(config));
    TRY(drive.device->swap_disk(std::move(disk)));
    drive.config = std::move(config);
    return {};
}

Result<> KvmMachine::update_drive_limits(const std::string& drive_id,
                                         const RateLimiterConfig& limits) {
    auto& drive = *TRY(find_drive(drive_id));
    drive.device->update_limits(to_limits(limits));
    return {};
}

}  // namespace masu

// The life of one VM.
#include "vmm/monitor.hpp"

#include <algorithm>

#include "vmm/config_check.hpp"
#include "vmm/jail/capabilities.hpp"

namespace masu {

Monitor::Monitor(MonitorServices services, Log log, VmConfig initial, bool reboot)
    : services_(std::move(services)),
      log_(std::move(log)),
      reboot_(reboot),
      vm_(std::move(initial)),
      network_(std::make_unique<Network>(services_.metadata_limit)) {}

Monitor::~Monitor() {
    prepared_.reset();
    drop_machine();
}

namespace {

// Whether it makes a VM other than the one a load was prepared for.
template <class Wanted>
constexpr bool sets_up(const Wanted&) {
    using namespace action;
    if constexpr (std::is_same_v<Wanted, LoadSnapshot> || std::is_same_v<Wanted, SetLogger> ||
                  std::is_same_v<Wanted, SetMetrics> || std::is_same_v<Wanted, SetSerial>)
        return false;
    return Wanted::allowed == Allowed::PreBoot || std::is_same_v<Wanted, PutMmds> ||
           std::is_same_v<Wanted, PatchMmds> || std::is_same_v<Wanted, SetInstanceMetadata>;
}

}  // namespace

Result<VmmReply> Monitor::apply(const VmmAction& action) {
    return std::visit(
        [this](const auto& wanted) -> Result<VmmReply> {
            TRY(check_allowed(wanted.allowed, wanted.name));
            if (sets_up(wanted))
                prepared_.reset();
            return carry_out(wanted);
        },
        action);
}

Result<> Monitor::check_allowed(Allowed allowed, std::string_view name) const {
    if (ended_)
        return fail("{} is not possible: the instance has ended", name);
    const bool started = state_ != VmState::NotStarted;
    if (allowed == Allowed::PreBoot && started)
        return fail("{} is not possible after the instance has started", name);
    if (allowed == Allowed::PostBoot && !started)
        return fail("{} is not possible before the instance has started", name);
    return {};
}

Result<VmmReply> Monitor::carry_out(const action::GetInstanceInfo&) {
    return InstanceInfo{.id = vm_.id, .state = state_, .jail = services_.walls};
}

Result<VmmReply> Monitor::carry_out(const action::GetVersion&) {
    return VersionInfo{};
}

Result<VmmReply> Monitor::carry_out(const action::GetMachineConfig&) {
    return vm_.machine;
}

Result<VmmReply> Monitor::carry_out(const action::GetVmConfig&) {
    FullConfig config{
        .vm = vm_, .logger = logger_, .metrics = std::nullopt, .serial_out_path = serial_out_path_};
    if (metrics_file_)
        config.metrics = metrics_file_->config();
    return config;
}

Result<VmmReply> Monitor::carry_out(const action::GetMetrics&) {
    return collect_metrics();
}

Result<VmmReply> Monitor::carry_out(const action::GetBootTimer&) {
    BootTimes times;
    for (std::size_t i = 0; i < milestone_count; ++i)
        times.since_start[i] = services_.boot_timer.since_start(static_cast<Milestone>(i));
    return times;
}

Result<VmmReply> Monitor::carry_out(const action::SetMachineConfig& action) {
    TRY(check(action.config));
    vm_.machine = action.config;
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::PatchMachineConfig& action) {
    auto machine = vm_.machine;
    machine.vcpu_count = action.vcpu_count.value_or(machine.vcpu_count);
    machine.mem_size_mib = action.mem_size_mib.value_or(machine.mem_size_mib);
    machine.smt = action.smt.value_or(machine.smt);
    machine.track_dirty_pages = action.track_dirty_pages.value_or(machine.track_dirty_pages);
    machine.huge_pages = action.huge_pages.value_or(machine.huge_pages);
    machine.cpu_template = action.cpu_template.value_or(machine.cpu_template);
    TRY(check(machine));
    vm_.machine = machine;
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::SetBootSource& action) {
    TRY(check(action.source));
    vm_.boot_source = action.source;
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::SetDrive& action) {
    TRY(check(action.drive));
    TRY(insert_drive(vm_, action.drive));
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::SetNetworkInterface& action) {
    auto interface = action.interface;
    TRY(check(interface));
    TRY(check_room(vm_, interface));
    TRY(network_->set_interface(interface));
    insert_interface(vm_, std::move(interface));
    if (vm_.metadata)
        network_->show_instance(*vm_.metadata, vm_);
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::SetSecurityGroups& action) {
    auto* interface = TRY(network_->require(action.iface_id));
    TRY(interface->set_rules(action.rules));
    interface->set_groups(action.groups);
    // A configuration that is read again, as a snapshot's is, lets nothing through without rules.
    for (auto& config : vm_.network_interfaces)
        if (config.iface_id == action.iface_id)
            config.firewall = true;
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::GetFirewall& action) {
    auto* interface = TRY(network_->require(action.iface_id));
    const auto* firewall = interface->firewall();
    if (firewall == nullptr)
        return fail("interface {} has no firewall: no security groups were ever set",
                    action.iface_id);
    return FirewallReport{.groups = interface->groups(),
                          .flows = firewall->flow_count(),
                          .flow_memory = firewall->flow_memory(),
                          .counters = firewall->counters(),
                          .rules = firewall->rule_counts()};
}

Result<VmmReply> Monitor::carry_out(const action::SetFlowLog& action) {
    auto* interface = TRY(network_->require(action.iface_id));
    auto config = action.config;
    if (vm_.metadata) {
        const auto& instance = vm_.metadata->instance;
        config.account_id = config.account_id.value_or(instance.account_id);
        config.instance_id = instance.instance_id;
    }
    TRY(interface->set_flow_log(config, {.loop = services_.loop,
                                         .log = log_,
                                         .metrics = services_.metrics,
                                         .clock = services_.clock}));
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::SetMmdsConfig& action) {
    TRY(check(action.config, vm_));
    vm_.mmds = action.config;
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::SetInstanceMetadata& action) {
    TRY(check(action.config, vm_));
    if (state_ != VmState::NotStarted) {
        if (!vm_.metadata)
            return fail(
                "no metadata service is configured; PUT /instance-metadata before the start");
        if (action.config.network_interfaces != vm_.metadata->network_interfaces)
            return fail("network_interfaces cannot change once the instance has started");
    }
    vm_.metadata = action.config;
    network_->show_instance(*vm_.metadata, vm_);
    return Done{};
}

Result<> Monitor::check_metadata_reachable() const {
    if (vm_.metadata)
        return fail("the metadata comes from /instance-metadata; /mmds is not in use");
    if (state_ != VmState::NotStarted && !vm_.mmds)
        return fail("no metadata service is configured; PUT /mmds/config before the start");
    return {};
}

Result<VmmReply> Monitor::carry_out(const action::PutMmds& action) {
    TRY(check_metadata_reachable());
    TRY(network_->store().put(action.json));
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::PatchMmds& action) {
    TRY(check_metadata_reachable());
    TRY(network_->store().patch(action.json));
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::GetMmds&) {
    return JsonText{network_->store().text()};
}

Result<VmmReply> Monitor::carry_out(const action::SetEntropy& action) {
    vm_.entropy = action.entropy;
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::SetVsock& action) {
    TRY(check(action.vsock));
    // The same path again is its own successor's.
    auto before = std::exchange(vsock_, nullptr);
    if (vm_.vsock && vm_.vsock->uds_path == action.vsock.uds_path)
        before.reset();
    auto opened = VsockHost::open(action.vsock, services_.loop);
    if (!opened) {
        vsock_ = std::move(before);
        if (!vsock_)
            vm_.vsock.reset();
        return std::unexpected(std::move(opened).error());
    }
    vsock_ = *std::move(opened);
    vm_.vsock = action.vsock;
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::SetLogger& action) {
    auto level = LogLevel::Info;
    if (action.logger.level)
        level = TRY(parse_log_level(*action.logger.level));
    if (action.logger.log_path)
        log_ = TRY(Log::to_file(*action.logger.log_path, level));
    else if (action.logger.level)
        log_.set_level(level);
    logger_ = action.logger;
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::SetMetrics& action) {
    if (metrics_file_)
        return fail("the metrics file is set already, to {}", metrics_file_->config().metrics_path);
    metrics_file_ = TRY(MetricsFile::create(services_.loop, action.metrics, vm_.id,
                                            [this] { return collect_metrics(); }));
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::SetSerial& action) {
    if (action.serial_out_path)
        TRY(services_.console.open_log(*action.serial_out_path));
    serial_out_path_ = action.serial_out_path;
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::StartInstance&) {
    TRY(check(vm_));
    TRY(create_machine());
    auto started = end_set_up();
    if (started)
        started = start_machine();
    if (!started) {
        drop_machine();
        return std::unexpected(started.error());
    }
    state_ = VmState::Running;
    log_.info("instance started", {kv("id", vm_.id)});
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::PatchDrive& action) {
    const auto drive = std::ranges::find(vm_.drives, action.drive_id, &DriveConfig::drive_id);
    if (drive == vm_.drives.end())
        return fail("there is no drive {}", action.drive_id);
    if (action.path_on_host || !action.rate_limiter) {
        TRY(machine_->update_drive(action.drive_id, action.path_on_host.value_or("")));
        drive->path_on_host = action.path_on_host.value_or(drive->path_on_host);
    }
    if (action.rate_limiter) {
        auto limits = drive->rate_limiter;
        if (action.rate_limiter->bandwidth)
            limits.bandwidth = action.rate_limiter->bandwidth;
        if (action.rate_limiter->ops)
            limits.ops = action.rate_limiter->ops;
        TRY(machine_->update_drive_limits(action.drive_id, limits));
        drive->rate_limiter = limits;
    }
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::PatchNetworkInterface& action) {
    const auto interface = std::ranges::find(vm_.network_interfaces, action.iface_id,
                                             &NetworkInterfaceConfig::iface_id);
    if (interface == vm_.network_interfaces.end())
        return fail("there is no network interface {}", action.iface_id);
    TRY(machine_->update_network_limits(action.iface_id, action.rx_rate_limiter,
                                        action.tx_rate_limiter));
    const auto merge = [](RateLimiterConfig& into, const RateLimiterConfig& from) {
        if (from.bandwidth)
            into.bandwidth = from.bandwidth;
        if (from.ops)
            into.ops = from.ops;
    };
    merge(interface->rx_rate_limiter, action.rx_rate_limiter);
    merge(interface->tx_rate_limiter, action.tx_rate_limiter);
    network_->find(action.iface_id)
        ->set_limits(interface->rx_rate_limiter, interface->tx_rate_limiter);
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::Pause&) {
    if (state_ == VmState::Running)
        TRY(machine_->pause());
    state_ = VmState::Paused;
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::Resume&) {
    if (state_ == VmState::Paused)
        TRY(machine_started_ ? machine_->resume() : start_machine());
    state_ = VmState::Running;
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::FlushMetrics&) {
    if (metrics_file_)
        TRY(metrics_file_->write_line());
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::SendCtrlAltDel&) {
    machine_->send_ctrl_alt_del();
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::PressPowerButton&) {
    machine_->press_power_button();
    return Done{};
}

Result<VmmReply> Monitor::carry_out(const action::Stop&) {
    stop("stopped through the API");
    return Done{};
}

void Monitor::stop(std::string reason) {
    end({.status = ExitStatus::Success, .kind = "stopped", .reason = std::move(reason)});
}

Result<> Monitor::create_machine() {
    machine_ = TRY(services_.create_machine(vm_, next_machine()));
    return {};
}

MachineContext Monitor::next_machine() {
    ++generation_;
    panic_line_.reset();
    machine_started_ = false;
    return {
        .loop = services_.loop,
        .log = log_,
        .metrics = services_.metrics,
        .boot_timer = services_.boot_timer,
        .network = *network_,
        .vsock = vsock_.get(),
        .console_output =
            [this](std::span<const std::byte> bytes) {
                panic_line_.feed(bytes);
                services_.console.output(bytes);
            },
        .stopped = [this, generation = generation_](
                       StopEvent event) { on_stopped(generation, std::move(event)); },
        .memory_lost = services_.memory_lost,
        .filters = services_.filters,
    };
}

// Ahead of the moment from which on somebody hostile may be in the process. Of a restored machine
// that is before it is asked to run, so that it costs the launch nothing.
Result<> Monitor::end_set_up() {
    if (!jailed())
        return {};
    services_.page_faults = Fd();
    std::vector<jail::ReopenedFile> files;
    if (vm_.boot_source && !vm_.boot_source->firmware)
        files.push_back({.path = vm_.boot_source->kernel_image_path});
    if (vm_.boot_source && vm_.boot_source->initrd_path)
        files.push_back({.path = *vm_.boot_source->initrd_path});
    for (const auto& drive : vm_.drives) {
        const bool own = !drive.overlay_path && !drive.is_read_only;
        files.push_back({.path = drive.path_on_host, .writable = own});
        if (drive.overlay_path)
            files.push_back({.path = *drive.overlay_path, .writable = true});
    }
    return jail::give_up_set_up_capabilities(files, log_);
}

Result<> Monitor::start_machine() {
    boot_start_ = services_.clock.now();
    TRY(machine_->start());
    machine_started_ = true;
    TRY(begin_recording());
    services_.console.set_input(
        [this](std::span<const std::byte> bytes) { return machine_->console_input(bytes); });
    return {};
}

void Monitor::drop_machine() {
    services_.console.set_input({});
    ++generation_;
    if (live_save_) {
        live_save_->give_up();
        last_save_ = live_save_->progress();
        if (last_save_.state == snapshot::SaveState::Running) {
            last_save_.state = snapshot::SaveState::Failed;
            last_save_.error = "the VM ended or restarted before it was saved";
        }
        live_save_.reset();
    }
    lineage_ = {};
    recording_.reset();
    machine_.reset();
    machine_started_ = false;
}

void Monitor::on_stopped(std::uint64_t generation, StopEvent event) {
    if (ended_ || generation != generation_)
        return;
    switch (event.kind) {
        case StopKind::PowerOff:
            end({.status = ExitStatus::Success,
                 .kind = "power-off",
                 .reason = "the guest powered off"});
            return;
        case StopKind::TripleFault:
            end({.status = ExitStatus::TripleFault,
                 .kind = "triple-fault",
                 .reason = std::move(event.reason)});
            return;
        case StopKind::Error:
            end({.status = ExitStatus::Error, .kind = "error", .reason = std::move(event.reason)});
            return;
        case StopKind::Reset:
        case StopKind::Panic:
            // A kernel without the pvpanic driver says so on the console only.
            if (const auto line = panic_line_.found())
                event = {.kind = StopKind::Panic,
                         .reason = fmt::format("the guest's kernel panicked: {}", *line)};
            on_reset(std::move(event));
            return;
    }
}

void Monitor::on_reset(StopEvent event) {
    const bool panicked = event.kind == StopKind::Panic;
    const bool failed = panicked || services_.clock.now() - boot_start_ < good_boot;
    failed_boots_ = failed ? failed_boots_ + 1 : 0;
    services_.metrics.counter("vmm", panicked ? "panics" : "resets").add();
    if (panicked && (!reboot_ || failed_boots_ >= max_failed_boots)) {
        end({.status = ExitStatus::GuestPanic, .kind = "panic", .reason = std::move(event.reason)});
        return;
    }
    if (!reboot_) {
        end({.status = ExitStatus::Success,
             .kind = "reboot",
             .reason = "the guest asked for a reboot"});
        return;
    }
    if (failed_boots_ >= max_failed_boots) {
        end({.status = ExitStatus::Error,
             .kind = "reset-loop",
             .reason = fmt::format("the guest failed to boot {} times in a row: it reset itself "
                                   "within {} s of its start",
                                   failed_boots_, good_boot / 1'000'000'000)});
        return;
    }
    if (panicked)
        log_.warn("restarting the guest after a panic", {kv("reason", event.reason)});
    else
        log_.info("the guest reboots", {kv("id", vm_.id)});
    drop_machine();
    services_.boot_timer.restart();
    auto restarted = create_machine();
    // A guest that was paused on its way down comes up paused.
    if (restarted && state_ == VmState::Running)
        restarted = start_machine();
    if (!restarted)
        end({.status = ExitStatus::Error,
             .kind = "error",
             .reason = fmt::format("the guest asked for a reboot, and starting it again failed: {}",
                                   restarted.error().message)});
}

void Monitor::end(MonitorExit exit) {
    if (ended_)
        return;
    ended_ = true;
    prepared_.reset();
    drop_machine();
    if (metrics_file_)
        if (auto written = metrics_file_->write_line(); !written)
            log_.warn("the last metrics are lost", {kv("error", written.error().message)});
    log_.info("instance ended", {kv("kind", exit.kind), kv("reason", exit.reason)});
    services_.ended(exit);
}

MetricsReport Monitor::collect_metrics() const {
    return {.wall_time = services_.clock.wall(), .samples = services_.metrics.samples()};
}

}  // namespace masu

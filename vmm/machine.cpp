// Assembles a machine on KVM in the order KVM likes, and takes it apart in the reverse.
#include "vmm/machine.hpp"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <tuple>
#include <utility>

#include "base/bytes.hpp"
#include "devices/block/virtio_block.hpp"
#include "devices/virtio/rng.hpp"
#include "firmware/boot_info.hpp"
#include "vmm/acpi/smbios.hpp"
#include "vmm/acpi/tables.hpp"
#include "vmm/boot/firmware.hpp"
#include "vmm/boot/loader.hpp"
#include "vmm/boot/reset_vector.hpp"
#include "vmm/kvm/cpu_features.hpp"
#include "vmm/kvm/cpu_template.hpp"
#include "vmm/kvm/empty_vm.hpp"
#include "vmm/kvm/guest_ram.hpp"
#include "vmm/kvm/host_identity.hpp"
#include "vmm/kvm/irq_routes.hpp"
#include "vmm/kvm/kvm.hpp"
#include "vmm/kvm/vcpu.hpp"
#include "vmm/kvm/vcpu_set.hpp"
#include "vmm/kvm/vm.hpp"
#include "vmm/kvm/write_log.hpp"
#include "vmm/layout.hpp"
#include "vmm/net/guest_network.hpp"
#include "vmm/platform.hpp"
#include "vmm/snapshot/memory_file.hpp"
#include "vmm/snapshot/served_memory.hpp"
#include "vmm/snapshot/working_set.hpp"
#include "vmm/virtio_devices.hpp"

namespace masu {
namespace {

// Members are declared so that default destruction is the right order: vCPUs stop first, then
// devices let go of guest memory and interrupts, then the VM, then the memory itself.
class KvmMachine final : public Machine {
  public:
    KvmMachine(MachineContext context, kvm::Kvm kvm, kvm::GuestRam ram)
        : context_(std::move(context)),
          kvm_(std::move(kvm)),
          ram_(std::move(ram)),
          dirty_(ram_.bytes()),
          memory_(ram_.regions(), &dirty_) {}
    ~KvmMachine() override;

    // The steps of create(), in order.
    [[nodiscard]] Result<> make_vm();
    [[nodiscard]] Result<> map_memory(bool log_writes);
    [[nodiscard]] Result<> make_devices(const VmConfig& config);
    [[nodiscard]] Result<> load_kernel(const VmConfig& config);
    [[nodiscard]] Result<> make_vcpus(const VmConfig& config);
    void handle_exits();
    // Those of restore(), before make_vm() and make_devices().
    void take(kvm::EmptyVm vm) {
        vm_ = std::move(vm.vm);
        cpuid_ = std::move(vm.cpuid);
        vcpus_ = std::move(vm.vcpus);
    }
    void go_on_from(RestoreSource source, bool log_writes) {
        arrival_ = source.readdressed;
        source_ = std::move(source);
        log_restored_ = log_writes;
    }

    [[nodiscard]] Result<> restore_state() override;
    [[nodiscard]] Result<snapshot::MachineState> save() override;
    [[nodiscard]] const kvm::GuestRam& ram() const override { return ram_; }
    [[nodiscard]] Result<> log_writes(bool on) override {
        return on ? write_log_->start() : write_log_->stop();
    }
    [[nodiscard]] bool logs_writes() const override { return write_log_->on(); }
    [[nodiscard]] Result<> collect_writes(PageSet& into) override {
        return write_log_->collect(into);
    }
    [[nodiscard]] Result<> start() override;
    [[nodiscard]] Result<> pause() override;
    [[nodiscard]] Result<> resume() override;
    void press_power_button() override { platform_->ged().raise(legacy::GedEvent::PowerButton); }
    void send_ctrl_alt_del() override;
    std::size_t console_input(std::span<const std::byte> bytes) override {
        return platform_->com1().input(bytes);
    }
    [[nodiscard]] Result<> update_drive(const std::string& drive_id,
                                        const std::string& path) override;
    [[nodiscard]] Result<> update_drive_limits(const std::string& drive_id,
                                               const RateLimiterConfig& limits) override;
    [[nodiscard]] Result<> update_network_limits(const std::string& iface_id,
                                                 const RateLimiterConfig& rx,
                                                 const RateLimiterConfig& tx) override;

  private:
    struct Drive {
        block::VirtioBlock* device;  // owned by virtio_
        DriveConfig config;
    };
    [[nodiscard]] Result<Drive*> find_drive(const std::string& drive_id);
    [[nodiscard]] PlatformEvents platform_events();
    void on_firmware_event(std::uint8_t value);  // vCPU threads
    [[nodiscard]] Result<> add_interface(const std::string& iface_id, const VmConfig& config);
    [[nodiscard]] Result<> add_drive(const DriveConfig& drive, unsigned vcpu_count);
    [[nodiscard]] Result<std::unique_ptr<block::Disk>> open_disk(const DriveConfig& drive);
    [[nodiscard]] kvm::CpuidPolicy cpuid_policy(const VmConfig& config) const;
    [[nodiscard]] Result<kvm::CpuidLeaves> template_cpuid(CpuTemplate model) const;
    [[nodiscard]] Result<> bring_memory();
    [[nodiscard]] Result<> put_back_devices();
    [[nodiscard]] Result<> put_back_vcpus();
    [[nodiscard]] Result<> finish_restore();
    void arrive();
    [[nodiscard]] Result<> renew_identity();
    // The guest or KVM ended the machine. Any thread; the first event counts.
    void report_stop(StopEvent event);

    MachineContext context_;
    SystemClock clock_;
    // Tells work posted to the loop that the machine is gone. Used on the loop's thread only.
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
    std::atomic<bool> stop_reported_{false};
    std::atomic<bool> panicked_{false};

    kvm::Kvm kvm_;
    kvm::GuestRam ram_;
    std::unique_ptr<snapshot::ServedMemory> served_;            // ends before ram_ does
    std::optional<snapshot::WorkingSetPopulation> population_;  // likewise
    DirtyPages dirty_;
    GuestMemory memory_;
    std::unique_ptr<kvm::Vm> vm_;
    std::unique_ptr<kvm::WriteLog> write_log_;
    Bus ports_;
    Bus mmio_;
    std::unique_ptr<kvm::IrqRoutes> routes_;
    std::unique_ptr<Platform> platform_;
    std::unique_ptr<VirtioDevices> virtio_;
    std::map<std::string, Drive> drives_;
    std::map<std::string, net::VirtioNet*> interfaces_;  // owned by virtio_
    vsock::VirtioVsock* vsock_ = nullptr;                // owned by virtio_
    boot::EntryState entry_;
    Transport transport_ = Transport::Pci;
    std::uint64_t generation_id_ = 0;      // its guest address; 0: none
    std::optional<RestoreSource> source_;  // until finish_restore()
    bool log_restored_ = false;            // writes, from restore_state() on
    // Of a machine that was restored, until start(): the interfaces that have other addresses.
    std::optional<std::vector<std::string>> arrival_;
    std::vector<kvm::CpuidLeaves> cpuid_;  // by vCPU
    std::unique_ptr<kvm::ExitHandlers> handlers_;
    std::unique_ptr<kvm::VcpuSet> vcpus_;
};

KvmMachine::~KvmMachine() {
    *alive_ = false;
    if (context_.vsock != nullptr)
        context_.vsock->release();
    if (vcpus_)
        vcpus_->stop();
}

Result<> KvmMachine::make_vm() {
    if (!vm_)
        vm_ = TRY(kvm::Vm::create(kvm_));
    routes_ = std::make_unique<kvm::IrqRoutes>(*vm_, context_.log.with_component("irq"));
    return {};
}

Result<> KvmMachine::map_memory(bool log_writes) {
    TRY(vm_->map_memory(memory_));
    write_log_ = std::make_unique<kvm::WriteLog>(kvm_, *vm_, memory_, dirty_);
    return log_writes ? write_log_->start() : Result<>();
}

PlatformEvents KvmMachine::platform_events() {
    return {
        .power_off =
            [this] {
                report_stop(panicked_ ? StopEvent{StopKind::Panic,
                                                  "the guest's kernel panicked and powered off"}
                                      : StopEvent{StopKind::PowerOff, "the guest powered off"});
            },
        .reset =
            [this] {
                report_stop(
                    panicked_ ? StopEvent{StopKind::Panic, "the guest's kernel panicked and reset"}
                              : StopEvent{StopKind::Reset, "the guest asked for a reset"});
            },
        .panic =
            [this](legacy::Pvpanic::Event event) {
                context_.log.warn("the guest reports a kernel panic");
                // With a crash kernel loaded the guest goes on by itself, to write its dump.
                if (event == legacy::Pvpanic::Event::Panicked)
                    panicked_ = true;
            },
        .init_reached = [this] { context_.boot_timer.mark(Milestone::Init); },
        .firmware_event = [this](std::uint8_t value) { on_firmware_event(value); },
    };
}

// A guest that is no firmware may write these as well: then it only ends itself.
void KvmMachine::on_firmware_event(std::uint8_t value) {
    switch (static_cast<firmware::FirmwareEvent>(value)) {
        case firmware::FirmwareEvent::Entry:
            context_.boot_timer.mark(Milestone::FirmwareEntry);
            break;
        case firmware::FirmwareEvent::LoaderStarted:
            context_.boot_timer.mark(Milestone::LoaderStarted);
            break;
        case firmware::FirmwareEvent::KernelHandover:
            context_.boot_timer.mark(Milestone::KernelHandover);
            break;
        case firmware::FirmwareEvent::NothingToBoot:
            report_stop({StopKind::Error,
                         "the firmware found nothing that boots; the console says what it tried"});
            break;
        case firmware::FirmwareEvent::Crash:
            report_stop(
                {StopKind::Error, "the boot loader crashed; the console's last lines say where"});
            break;
    }
}

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

block::OpenOptions open_options(const DriveConfig& drive) {
    return {.path = drive.path_on_host,
            .read_only = drive.is_read_only,
            .direct = drive.direct,
            .force_sync = drive.io_engine == IoEngine::Sync,
            .overlay = drive.overlay_path.value_or(""),
            .overlay_size = drive.overlay_size.value_or(0),
            .overlay_synced = !drive.overlay_dies_with_vm};
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

// With our metadata service the machine says that it is an EC2 instance, by which cloud-init finds
// the service.
Result<acpi::SmbiosIdentity> identity_of(const VmConfig& config) {
    acpi::SmbiosIdentity identity;
    if (!config.metadata)
        return identity;
    const auto& instance = config.metadata->instance;
    const auto uuid = ec2_uuid(instance.instance_id);
    identity.manufacturer = "Amazon EC2";
    identity.product = instance.instance_type;
    identity.uuid = TRY(acpi::parse_uuid(uuid));
    identity.serial = uuid;
    identity.board_asset_tag = instance.instance_id;
    return identity;
}

Result<> KvmMachine::load_kernel(const VmConfig& config) {
    if (!config.boot_source)
        return fail("nothing to boot is given; see PUT /boot-source");
    const auto& source = *config.boot_source;
    TRY(acpi::install_tables({.vcpus = config.machine.vcpu_count,
                              .pci = config.transport == Transport::Pci,
                              .virtio_mmio = virtio_->mmio_windows()},
                             memory_));
    auto identity = TRY(identity_of(config));
    TRY(acpi::install_smbios({.identity = std::move(identity),
                              .vcpus = config.machine.vcpu_count,
                              .memory_bytes = memory_.total_bytes()},
                             memory_));
    TRY(boot::install_reset_vector(memory_));
    generation_id_ = layout::generation_id;
    TRY(renew_identity());
    if (source.firmware) {
        entry_ = TRY(boot::load_firmware({.load_options = source.boot_args.value_or(""),
                                          .boot_menu = source.boot_menu,
                                          .boot_device = source.boot_device},
                                         memory_));
        context_.boot_timer.mark(Milestone::KernelLoaded);
        return {};
    }
    entry_ = TRY(boot::load({.kernel_path = source.kernel_image_path,
                             .initrd_path = source.initrd_path,
                             .command_line = source.boot_args.value_or(default_boot_args),
                             .rsdp = layout::acpi_rsdp},
                            memory_));
    context_.boot_timer.mark(Milestone::KernelLoaded);
    return {};
}

kvm::CpuidPolicy KvmMachine::cpuid_policy(const VmConfig& config) const {
    return {.topology = {.vcpu_count = config.machine.vcpu_count, .smt = config.machine.smt},
            .tsc_deadline = kvm_.capability(KVM_CAP_TSC_DEADLINE_TIMER) > 0};
}

Result<kvm::CpuidLeaves> KvmMachine::template_cpuid(CpuTemplate model) const {
    const auto supported = TRY(kvm_.supported_cpuid());
    if (const auto missing = kvm::missing_for(supported, model); !missing.empty())
        return fail(
            "this host's CPU lacks what the CPU template {} has: {}; choose a lower one, or host",
            kvm::to_string(model), fmt::join(missing, ", "));
    return kvm::apply_template(supported, model);
}

Result<> KvmMachine::make_vcpus(const VmConfig& config) {
    const auto supported = TRY(template_cpuid(config.machine.cpu_template));
    const auto policy = cpuid_policy(config);
    std::vector<kvm::Vcpu> vcpus;
    for (unsigned index = 0; index < config.machine.vcpu_count; ++index) {
        auto vcpu = TRY(kvm::Vcpu::create(kvm_, *vm_, index));
        cpuid_.push_back(kvm::make_cpuid(supported, policy, index));
        TRY(vcpu.set_cpuid(cpuid_.back()));
        TRY(vcpu.set_boot_defaults());
        if (index == 0)
            TRY(vcpu.set_entry(entry_));
        if (index == 0 && config.boot_source->firmware)
            TRY(boot::tell_tsc_frequency(vcpu.tsc_khz(), memory_));
        vcpus.push_back(std::move(vcpu));
    }
    vcpus_ = TRY(kvm::VcpuSet::create(std::move(vcpus), context_.metrics, context_.boot_timer,
                                      context_.filters));
    handle_exits();
    // Doorbells come last: anything put on KVM's I/O bus makes the next memory-slot change or the
    // end of the VM wait for a grace period.
    TRY(virtio_->register_doorbells());
    context_.boot_timer.mark(Milestone::KvmReady);
    return {};
}

void KvmMachine::handle_exits() {
    handlers_ = std::make_unique<kvm::ExitHandlers>(kvm::ExitHandlers{
        .ports = ports_,
        .mmio = mmio_,
        .ioapic_eoi = [this](std::uint8_t vector) { platform_->ioapic().end_of_interrupt(vector); },
        .stop = [this](StopEvent event) { report_stop(std::move(event)); }});
    vcpus_->handle_exits(*handlers_);
}

// 16 bytes nobody has had before, where the guest looks for them.
Result<> KvmMachine::renew_identity() {
    if (generation_id_ == 0)
        return {};
    std::array<std::byte, 16> id{};
    if (::getrandom(id.data(), id.size(), 0) != static_cast<ssize_t>(id.size()))
        return fail_errno(errno, "the host gives no random bytes for the VM generation ID");
    if (!memory_.write(GuestAddress{generation_id_}, id))
        return fail("the VM generation ID lies at {:#x}, outside of guest memory", generation_id_);
    return {};
}

Result<> check_source(const VmConfig& config, const snapshot::MachineState& state) {
    if (state.vcpus.size() != config.machine.vcpu_count ||
        state.memory_bytes != config.machine.mem_size_mib * MiB)
        return fail(
            "the snapshot's machine has {} vCPUs and {}, but its configuration says {} and "
            "{} MiB",
            state.vcpus.size(), format_size(state.memory_bytes), config.machine.vcpu_count,
            config.machine.mem_size_mib);
    if (state.transport != config.transport)
        return fail(
            "the snapshot's machine has its devices behind {}: start masu-vmm with "
            "--transport {}",
            state.transport == Transport::Pci ? "PCI" : "virtio-mmio",
            state.transport == Transport::Pci ? "pci" : "mmio");
    return {};
}

// From the file or, from now on, from the handler at that socket.
Result<> KvmMachine::bring_memory() {
    auto& source = *source_;
    if (source.memory_handler.empty()) {
        auto file = TRY(snapshot::open_memory_file(source.memory_path, ram_.size()));
        TRY(ram_.put_file(std::move(file)));
    } else {
        if (!source.faults)
            source.faults = TRY(snapshot::open_userfaultfd());
        served_ = TRY(snapshot::ServedMemory::connect(ram_, std::move(source.faults),
                                                      source.memory_handler, context_.filters,
                                                      context_.memory_lost));
    }
    if (source.working_set)
        population_.emplace(ram_, *std::exchange(source.working_set, std::nullopt),
                            context_.filters);
    return {};
}

Result<> KvmMachine::restore_state() {
    TRY(bring_memory());
    TRY(map_memory(log_restored_));
    TRY(put_back_vcpus());
    return put_back_devices();
}

Result<> KvmMachine::put_back_vcpus() {
    for (std::size_t i = 0; i < vcpus_->size(); ++i)
        TRY(kvm::restore_still_registers(kvm_, vcpus_->vcpu(i), source_->state.vcpus[i].registers));
    return {};
}

Result<> KvmMachine::put_back_devices() {
    const auto& state = source_->state;
    generation_id_ = state.generation_id;
    panicked_ = state.panicked;
    TRY(renew_identity());
    platform_->restore(state.platform);
    return virtio_->restore(state.devices);
}

// The clock before the vCPUs, whose kvmclock follows it; the word of the new identity last of all,
// because its interrupt needs LAPICs.
Result<> KvmMachine::finish_restore() {
    const auto source = std::move(*source_);
    source_.reset();
    const auto& state = source.state;
    const auto now = clock_.wall();
    const std::uint64_t passed =
        source.clock == ClockPolicy::Realtime && now > state.wall_time ? now - state.wall_time : 0;
    kvm_clock_data clock{};
    clock.clock = state.guest_clock + passed;
    TRY(vm_->set_clock(clock));
    for (std::size_t i = 0; i < vcpus_->size(); ++i) {
        const auto& registers = state.vcpus[i].registers;
        const auto ticks = static_cast<std::uint64_t>(static_cast<__uint128_t>(passed) *
                                                      registers.tsc_khz / 1'000'000);
        TRY(kvm::restore_timed_registers(vcpus_->vcpu(i), registers, ticks));
        vcpus_->vcpu(i).excuse_pause();
    }
    if (generation_id_ != 0)
        platform_->ged().raise(legacy::GedEvent::VmGenerationId);
    return {};
}

// The devices first: what they finish on the way may interrupt a vCPU.
Result<snapshot::MachineState> KvmMachine::save() {
    if (source_)
        TRY(finish_restore());
    snapshot::MachineState state;
    state.host = kvm::host_identity(kvm_);
    state.memory_bytes = ram_.size();
    state.generation_id = generation_id_;
    state.panicked = panicked_;
    state.devices = TRY(virtio_->save());
    state.transport = transport_;
    state.platform = platform_->save();
    const auto msrs = TRY(kvm::saved_msr_list(kvm_));
    state.guest_clock = TRY(vm_->clock()).clock;
    state.wall_time = clock_.wall();
    for (std::size_t i = 0; i < vcpus_->size(); ++i) {
        auto registers = TRY(kvm::save_registers(kvm_, vcpus_->vcpu(i), msrs));
        registers.msrs = kvm::shown_msrs(std::move(registers.msrs), cpuid_[i]);
        state.vcpus.push_back({.cpuid = cpuid_[i], .registers = std::move(registers)});
    }
    return state;
}

void KvmMachine::report_stop(StopEvent event) {
    if (stop_reported_.exchange(true))
        return;
    context_.loop.post([this, alive = alive_, event = std::move(event)]() mutable {
        if (!*alive)
            return;
        vcpus_->stop();
        platform_->com1().flush();
        const auto stopped = context_.stopped;  // the call may destroy this machine
        stopped(std::move(event));
    });
}

Result<> KvmMachine::start() {
    if (source_)
        TRY(finish_restore());
    arrive();
    vcpus_->resume();
    return {};
}

// Not part of finish_restore(): a machine that is saved again before it runs is still to arrive.
void KvmMachine::arrive() {
    const auto readdressed = std::exchange(arrival_, std::nullopt);
    if (!readdressed)
        return;
    if (vsock_ != nullptr)
        vsock_->arrive();
    using enum net::VirtioNet::Arrival;
    for (auto& [id, device] : interfaces_)
        device->arrive(std::ranges::find(*readdressed, id) != readdressed->end() ? NewAddress
                                                                                 : SameAddress);
}

Result<> KvmMachine::pause() {
    vcpus_->pause();
    return {};
}

Result<> KvmMachine::resume() {
    vcpus_->resume();
    return {};
}

void KvmMachine::send_ctrl_alt_del() {
    if (!platform_->i8042().send_ctrl_alt_del())
        context_.log.warn("Ctrl-Alt-Del has no effect: the guest has enabled no keyboard");
}

}  // namespace

Result<std::unique_ptr<Machine>> Machine::create(const VmConfig& config, MachineContext context) {
    auto kvm = TRY(kvm::Kvm::open());
    auto ram =
        TRY(kvm::GuestRam::create(config.machine.mem_size_mib * MiB, config.machine.huge_pages));
    auto machine = std::make_unique<KvmMachine>(std::move(context), std::move(kvm), std::move(ram));
    TRY(machine->make_vm());
    TRY(machine->map_memory(config.machine.track_dirty_pages));
    TRY(machine->make_devices(config));
    TRY(machine->load_kernel(config));
    TRY(machine->make_vcpus(config));
    return machine;
}

Result<std::unique_ptr<Machine>> Machine::restore(const VmConfig& config, RestoreSource source,
                                                  MachineContext context) {
    TRY(check_source(config, source.state));
    auto vm = TRY(kvm::EmptyVm::create({.cpuid = snapshot::shown_cpuid(source.state),
                                        .smt = config.machine.smt,
                                        .host = source.state.host},
                                       {.metrics = context.metrics,
                                        .boot_timer = context.boot_timer,
                                        .filters = context.filters}));
    auto ram = source.memory_handler.empty()
                   ? TRY(kvm::GuestRam::reserve(source.state.memory_bytes))
                   : TRY(kvm::GuestRam::create_served(source.state.memory_bytes));
    auto machine =
        std::make_unique<KvmMachine>(std::move(context), std::move(vm.kvm), std::move(ram));
    machine->take(std::move(vm));
    machine->go_on_from(std::move(source), config.machine.track_dirty_pages);
    TRY(machine->make_vm());
    TRY(machine->make_devices(config));
    machine->handle_exits();
    return machine;
}

}  // namespace masu

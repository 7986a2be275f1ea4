// Assembles a machine on KVM in the order KVM likes, and takes it apart in the reverse.
#include "vmm/machine.hpp"

#include <sys/random.h>

#include <array>
#include <cerrno>
#include <utility>

#include "firmware/boot_info.hpp"
#include "vmm/acpi/smbios.hpp"
#include "vmm/acpi/tables.hpp"
#include "vmm/boot/firmware.hpp"
#include "vmm/boot/loader.hpp"
#include "vmm/boot/reset_vector.hpp"
#include "vmm/kvm/cpu_features.hpp"
#include "vmm/kvm/cpu_template.hpp"
#include "vmm/kvm/vcpu.hpp"
#include "vmm/kvm_machine.hpp"
#include "vmm/layout.hpp"
#include "vmm/net/guest_network.hpp"

namespace masu {
namespace {

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

}  // namespace

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

}  // namespace masu

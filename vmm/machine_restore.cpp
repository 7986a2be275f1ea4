// Saves what a machine is but for its memory, and makes one that goes on from there.
#include <algorithm>
#include <utility>

#include "vmm/kvm/host_identity.hpp"
#include "vmm/kvm/vcpu_state.hpp"
#include "vmm/kvm_machine.hpp"
#include "vmm/snapshot/memory_file.hpp"

namespace masu {
namespace {

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

}  // namespace

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

// The machine on KVM: what its parts are, and in which order they are made and taken apart.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "devices/block/virtio_block.hpp"
#include "devices/bus.hpp"
#include "vmm/boot/loader.hpp"
#include "vmm/kvm/empty_vm.hpp"
#include "vmm/kvm/guest_ram.hpp"
#include "vmm/kvm/irq_routes.hpp"
#include "vmm/kvm/kvm.hpp"
#include "vmm/kvm/vcpu_set.hpp"
#include "vmm/kvm/vm.hpp"
#include "vmm/kvm/write_log.hpp"
#include "vmm/machine.hpp"
#include "vmm/platform.hpp"
#include "vmm/snapshot/served_memory.hpp"
#include "vmm/snapshot/working_set.hpp"
#include "vmm/virtio_devices.hpp"

namespace masu {

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

}  // namespace masu

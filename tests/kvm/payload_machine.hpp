// A machine with just enough around the vCPUs to run one bare-metal payload and hear what it
// reports.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/clock.hpp"
#include "base/metrics.hpp"
#include "devices/bus.hpp"
#include "devices/legacy/ioapic.hpp"
#include "vmm/boot_timer.hpp"
#include "vmm/kvm/guest_ram.hpp"
#include "vmm/kvm/irq_routes.hpp"
#include "vmm/kvm/vcpu_set.hpp"
#include "vmm/kvm/vm.hpp"

namespace masu::test {

// Bytes of memory as a device; counts and keeps what is written to it.
class ScratchDevice final : public BusDevice {
  public:
    explicit ScratchDevice(std::size_t size) : bytes_(size) {}
    void read(std::uint64_t offset, std::span<std::byte> data) override;
    void write(std::uint64_t offset, std::span<const std::byte> data) override;
    [[nodiscard]] std::string written() const;   // all bytes, in order of writing
    std::function<void(std::uint8_t)> on_write;  // first byte of each write

  private:
    mutable std::mutex mutex_;
    std::vector<std::byte> bytes_;
    std::string written_;
};

class PayloadMachine {
  public:
    // Loads the payload at 1 MiB; nothing runs before start(). Throws std::runtime_error when KVM
    // refuses something: a test failure.
    PayloadMachine(std::span<const char> payload, unsigned vcpus = 1);
    ~PayloadMachine();

    void start();
    // Reports so far, once there are `count` or the payload is done or stopped; fewer after 10 s.
    [[nodiscard]] std::vector<std::uint32_t> wait_for_reports(std::size_t count);
    // True when the payload wrote to its done port; false when it stopped otherwise, or after 10 s.
    [[nodiscard]] bool wait_until_done();
    [[nodiscard]] std::optional<StopEvent> wait_for_stop();

    // A word of guest memory.
    [[nodiscard]] std::uint64_t peek(std::uint64_t address) const;
    void poke32(std::uint64_t address, std::uint32_t value);
    [[nodiscard]] std::uint64_t count(const char* exit);

    SystemClock clock;
    Metrics metrics;
    Bus ports;
    Bus mmio;
    ScratchDevice port_device{16};  // at 0xe8
    ScratchDevice mmio_device{16};  // at 0xd0000000

  private:
    struct Reports;
    std::unique_ptr<Reports> reports_;
    BootTimer boot_timer_{clock, clock.now()};
    kvm::GuestRam ram_;

  public:
    GuestMemory memory;
    std::unique_ptr<kvm::Vm> vm;
    std::unique_ptr<kvm::IrqRoutes> routes;
    std::unique_ptr<legacy::Ioapic> ioapic;

  private:
    kvm::ExitHandlers handlers_;

  public:
    std::unique_ptr<kvm::VcpuSet> vcpus;
};

}  // namespace masu::test

// The milestones of a start, with the time of each.
#pragma once

#include <array>
#include <atomic>
#include <optional>
#include <string_view>
#include <vector>

#include "base/clock.hpp"

namespace masu {

enum class Milestone : std::uint8_t {
    ProcessStart,      // the monitor's main() (or --start-time-us)
    KvmReady,          // VM, memory, vCPUs and devices are made
    KernelLoaded,      // kernel, initrd and tables are in guest memory
    FirstInstruction,  // the boot vCPU enters guest mode for the first time
    KernelEntry,       // the guest's first access to a device of ours: it runs
    FirmwareEntry,     // of a firmware boot only: the firmware runs,
    LoaderStarted,     // has started the first boot loader,
    KernelHandover,    // and has left the machine to a kernel (ExitBootServices or a direct entry)
    Init,              // user space wrote the init milestone (port 0x50a, or MMIO as Firecracker's)
};
inline constexpr std::size_t milestone_count = 9;

// mark() may be called from any thread; the first call for a milestone counts.
class BootTimer {
  public:
    explicit BootTimer(const Clock& clock, Nanoseconds process_start) : clock_(clock) {
        times_[0] = process_start;
    }
    // True when this call set it. Cheap (one load) when it is set already.
    bool mark(Milestone milestone) noexcept {
        auto& slot = times_[static_cast<std::size_t>(milestone)];
        if (slot.load(std::memory_order_relaxed) != 0)
            return false;
        Nanoseconds unset = 0;
        return slot.compare_exchange_strong(unset, clock_.now(), std::memory_order_relaxed);
    }
    // Since ProcessStart.
    [[nodiscard]] std::optional<Nanoseconds> since_start(Milestone milestone) const noexcept {
        const auto time =
            times_[static_cast<std::size_t>(milestone)].load(std::memory_order_relaxed);
        if (time == 0)
            return std::nullopt;
        return time - times_[0].load(std::memory_order_relaxed);
    }
    // For a guest that reboots: everything after ProcessStart is measured anew.
    void restart() noexcept {
        times_[0] = clock_.now();
        for (std::size_t i = 1; i < milestone_count; ++i)
            times_[i] = 0;
    }

  private:
    const Clock& clock_;
    std::array<std::atomic<Nanoseconds>, milestone_count> times_{};
};

[[nodiscard]] constexpr std::string_view to_string(Milestone milestone) {
    constexpr std::array<std::string_view, milestone_count> names{
        "process_start",  "kvm_ready",      "kernel_loaded",
        "first_instruction", "kernel_entry", "firmware_entry",
        "loader_started", "kernel_handover", "init"};
    return names[static_cast<std::size_t>(milestone)];
}

}  // namespace masu
